"""Does `simulate` catch and name every wrong rescaling, on networks whose data hide it?

Three networks are converted for target `asic`, which rounds halves up, and exported as RTL. Each of
eight faults is planted in `requantize_unit.sv` of the export (all in one build, one at a time by a
plus argument), and the export is simulated. The rows say how many integers of the network itself
and how many conformance vectors were wrong, and what the report said of the fault.

    python benchmarks/planted_roundings.py [NETWORK ...]
"""

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from networks import images_for
from photomask.chip import (
    IntegerProgram,
    calibrate,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.cost import load_accelerator
from photomask.chip.forms.rtl import RtlDesign, RtlForm, simulate
from photomask.chip.forms.rtl.simulation import sources_in
from photomask.chip.forms.rtl.simulator import build
from photomask.zoo import load
from rows import Results, Subject

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Fault:
    """A fault, by what the report should say of it, as three expressions of the RTL.

    Attributes:
        words: what the report should say.
        shift: in place of the shift.
        rounded: in place of the rounded product.
        below: in place of the test for a result below the low end.
        above: in place of the test for one above the high end.
    """

    words: str
    shift: str = "shift"
    rounded: str = "rounded"
    below: str = "moved < product_t'(low)"
    above: str = "moved > product_t'(high)"


FAULTS = (
    Fault(
        "rounds halves down",
        rounded="(biased - (used_shift == 0 ? 0 : product_t'(1))) >>> used_shift",
    ),
    Fault(
        "rounds halves to even",
        rounded="up - (up & product_t'(used_shift != 0 && (up <<< used_shift) == biased))",
    ),
    Fault(
        "rounds halves away from zero",
        rounded="product < 0 ? -((half - product) >>> used_shift) : up",
    ),
    Fault("rounds toward zero", rounded="product / (product_t'(1) <<< used_shift)"),
    Fault("shifts by one bit too many", shift="shift + 6'd1"),
    Fault("shifts by one bit too few", shift="shift - 6'd1"),
    Fault("does not saturate at the low end", below="1'b0"),
    Fault("does not saturate at the high end", above="1'b0"),
)


def plant(folder: Path) -> None:
    """Puts every fault into the RTL of an export; plus argument `+fault=N` picks one, 0 none."""
    unit = folder / "requantize_unit.sv"
    text = unit.read_text(encoding="utf-8")
    header, body = text[: text.index("\n  typedef")], text[text.index("\n  typedef") :]
    body = body.replace("shift", "used_shift")
    for field, right in (
        ("rounded", "scaled <= rounded"),
        ("below", Fault.below),
        ("above", Fault.above),
    ):
        assert body.count(right) == 1, right
        body = body.replace(right, ("scaled <= " if field == "rounded" else "") + choice(field))
    declared = f"\n  logic [5:0] used_shift;\n  assign used_shift = {choice('shift')};\n"
    unit.write_text(header + declared + body, encoding="utf-8")
    package, testbench = folder / "descriptor_package.sv", folder / "testbench.sv"
    name = "package descriptor_package;"
    text = package.read_text(encoding="utf-8")
    package.write_text(text.replace(name, f"{name}\n  int fault;"), encoding="utf-8")
    text = testbench.read_text(encoding="utf-8")
    picked = '#1;\n    if (!$value$plusargs("fault=%d", fault)) fault = 0;'
    assert text.count("#1;") == 1
    testbench.write_text(text.replace("#1;", picked), encoding="utf-8")


def choice(field: str) -> str:
    """Returns an expression that is each fault's where that fault is picked."""
    right = getattr(Fault, field)
    chosen = "".join(
        f"descriptor_package::fault == {number} ? ({getattr(fault, field)}) : "
        for number, fault in enumerate(FAULTS, start=1)
        if getattr(fault, field) != right
    )
    return f"({chosen}({right}))"


def small_convolutions() -> nn.Module:
    """Returns convolutions with a shortcut and random weights, for inputs of 1 × 12 × 12."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
            self.classifier = nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return self.classifier((y + self.second(y)).mean((2, 3)))

    torch.manual_seed(1)
    return Network().eval()


def small_perceptron() -> nn.Module:
    """Returns linear layers with a GELU and random weights, for inputs of 1 × 12 × 12."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 16), nn.GELU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
    ).eval()


NETWORKS = {
    "resnet20": lambda: load("resnet20"),
    "small_convolutions": small_convolutions,
    "small_perceptron": small_perceptron,
}


def converted(network: str) -> tuple[IntegerProgram, torch.Tensor]:
    """Returns the network's program and one image."""
    if network == "resnet20":
        images = images_for(network, CALIBRATION_IMAGES, seed=0)
    else:
        images = torch.randn(
            CALIBRATION_IMAGES, 1, 12, 12, generator=torch.Generator().manual_seed(0)
        )
    prepared = prepare(NETWORKS[network](), load_recipe("w8a8"), images[:1])
    calibrate(prepared, images.split(32))
    program = convert(prepared, load_target("asic"))
    return program, program.quantize_input(images[:1])


def measure(network: str, results: Results, folder: Path) -> None:
    """Plants every fault in the network's export and appends what was found."""
    program, codes = converted(network)
    machine = load_accelerator("reference")
    design: RtlDesign = export(program, folder / "rtl", codes, form=RtlForm(accelerator=machine))
    plant(folder / "rtl" / "rtl")
    simulator = build(sources_in(folder / "rtl" / "rtl"), design.parameters, folder / "build")
    for number, words in enumerate(("none", *(fault.words for fault in FAULTS))):
        chosen = replace(simulator, arguments=(f"+fault={number}",))
        report = simulate(folder / "rtl", simulator=chosen)
        proof = report.conformance
        assert proof is not None
        named = proof.faults == ((words,) if number else ())
        subject = Subject("planted_roundings", words, network)
        results.number(subject, "wrong integers of the network", report.mismatches, "integers")
        results.number(subject, "wrong vectors", proof.wrong, "vectors", note=f"of {proof.vectors}")
        results.number(
            subject, "caught", int(not report.passed), "", note=str(proof).split("\n")[0]
        )
        results.number(subject, "named", int(named), "", note=" or ".join(proof.faults))
        assert report.passed == (number == 0), words
        assert named, (words, proof.faults)


def main() -> None:
    """Measures the networks named, or all."""
    results = Results("planted_roundings")
    for network in sys.argv[1:] or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            measure(network, results, Path(folder))


if __name__ == "__main__":
    main()

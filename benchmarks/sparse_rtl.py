"""How many cycles and how much weight memory do zeros save in the reference design?

ResNet-20 of the zoo is pruned once by magnitude, calibrated and converted, and simulated in
Verilator on one image, on an array of 8 × 8. Every integer of every step is compared. No network is
trained afterwards, because neither cycles nor bytes depend on the accuracy.

- `dense` has all weights, on a dense array.
- `2:4` keeps two of four inputs, on an array for 2:4.
- `tile-sparse 80 %` has four of five tiles of 8 × 8 weights zero, on a dense array.

The weight memory counts the words that the program uses, positions included.

    python benchmarks/sparse_rtl.py [dense | 2:4 | tile-sparse ...]
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

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
from photomask.chip.cost import Accelerator, load_accelerator
from photomask.chip.forms.rtl import RtlForm, simulate
from photomask.chip.forms.rtl.lowering import lower
from photomask.chip.forms.rtl.weight_image import word_bits
from photomask.chip.pruning import Blocks, Magnitude, NofM, Pruner, prune
from photomask.zoo import load
from rows import Results, Subject

NETWORK = "resnet20"
CALIBRATION_IMAGES = 64
CALIBRATION_BATCH = 32
TWO_OF_FOUR = NofM(kept=2, group=4)


@dataclass(frozen=True)
class Case:
    """A network, and the array that it runs on.

    Attributes:
        name: what the rows call it.
        recipe: the widths.
        pruner: None for the dense network.
        pattern: the pattern of the array; None for a dense array.
    """

    name: str
    recipe: str
    pruner: Pruner | None = None
    pattern: NofM | None = None

    def machine(self) -> Accelerator:
        """Returns the array of 8 × 8 with weights of the recipe's width."""
        update = {
            "rows": 8,
            "columns": 8,
            "weight_bits": int(self.recipe[1]),
            "sparse": self.pattern,
        }
        return load_accelerator("reference").model_copy(update=update)


CASES = tuple(
    case
    for recipe in ("w8a8", "w4a8")
    for case in (
        Case("dense", recipe),
        Case("2:4", recipe, Magnitude(pattern=TWO_OF_FOUR), TWO_OF_FOUR),
        Case("tile-sparse 80 %", recipe, Magnitude(0.8, pattern=Blocks(outputs=8, inputs=8))),
    )
)


def converted(case: Case) -> IntegerProgram:
    """Returns the program of a case."""
    images = images_for(NETWORK, CALIBRATION_IMAGES)
    prepared = prepare(load(NETWORK), load_recipe(case.recipe), images[:1])
    if case.pruner is not None:
        prune(prepared, case.pruner)
    calibrate(prepared, images.split(CALIBRATION_BATCH))
    return convert(prepared, load_target("asic"))


def prunable(program: IntegerProgram) -> set[str]:
    """Returns the steps that 2:4 prunes: those with at least one whole group of inputs."""
    return {
        step.name
        for step in program.steps
        if "weight" in step.tensors
        and program.tensors[step.tensors["weight"]].shape[1] >= TWO_OF_FOUR.group
    }


def measure(case: Case, results: Results) -> None:
    """Simulates one image and appends what was found."""
    program, machine = converted(case), case.machine()
    codes = program.quantize_input(images_for(NETWORK, 1, seed=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "rtl"
        export(program, folder, codes, form=RtlForm(accelerator=machine))
        report = simulate(folder)
    layers = prunable(program)
    cycles = sum(layer.rtl_cycles for layer in report.layers if layer.step in layers)
    size = len(lower(program, machine).images.weights) * word_bits(machine) // 8
    name = f"{case.name}, {case.recipe.upper()}"
    subject = Subject("sparse_rtl", name, NETWORK, package="verilator")
    results.number(subject, "integers compared", report.integers, "integers")
    results.number(subject, "mismatches", report.mismatches, "integers")
    results.number(subject, "RTL cycles", report.rtl_cycles, "cycles")
    results.number(subject, "formula's cycles", report.model_cycles, "cycles")
    results.number(subject, "RTL cycles of the layers that 2:4 prunes", cycles, "cycles")
    results.number(subject, "weight memory", size, "bytes")
    assert report.passed, str(report.first_mismatch)


def main() -> None:
    """Measures the cases whose names begin with an argument, or all."""
    results = Results("sparse_rtl")
    for case in CASES:
        if not sys.argv[1:] or any(case.name.startswith(name) for name in sys.argv[1:]):
            measure(case, results)


if __name__ == "__main__":
    main()

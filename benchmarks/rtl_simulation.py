"""Do whole networks compute the oracle's integers in RTL, how many cycles do they take, how long?

Each network is calibrated and converted (W8A8, target `asic`), exported with the reference design
(16 × 16) and run in Verilator on one image. Every integer of every step is compared. Build and run
are timed with what the machine has to offer; the cycles are counted by the RTL.

`vit_tiny_block` is a vision transformer with one block of ViT-Tiny's size (197 tokens of 192, three
heads, 768 hidden), all that stands before and behind it included, with random weights.

    python benchmarks/rtl_simulation.py [NETWORK ...]
"""

import sys
import tempfile
import time
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
from photomask.chip.forms.rtl import RtlForm, simulate
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.simulation import sources_in
from photomask.chip.forms.rtl.simulator import build
from photomask.zoo import load, photograph_crops
from photomask.zoo.models import VisionTransformer
from rows import Results, Subject

NETWORKS = ("resnet20", "mobilenet_v1", "mobilenet_v2", "vision_transformer", "vit_tiny_block")
CALIBRATION_IMAGES = 64
CALIBRATION_BATCH = 32


def vit_tiny_block() -> nn.Module:
    """Returns ViT-Tiny with one block, random weights."""
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=224,
        patch_size=16,
        in_channels=3,
        width=192,
        depth=1,
        heads=3,
        hidden=768,
        classes=1000,
    ).eval()


def images_of(network: str, count: int, *, seed: int = 0) -> torch.Tensor:
    """Returns images for a network of this benchmark."""
    if network == "vit_tiny_block":
        return photograph_crops(count, seed=seed)
    return images_for(network, count, seed=seed)


def converted(network: str) -> IntegerProgram:
    """Returns the network's program."""
    images = images_of(network, CALIBRATION_IMAGES)
    model = vit_tiny_block() if network == "vit_tiny_block" else load(network)
    prepared = prepare(model, load_recipe("w8a8"), images[:1])
    calibrate(prepared, images.split(CALIBRATION_BATCH))
    return convert(prepared, load_target("asic"))


def measure(network: str, results: Results, folder: Path) -> None:
    """Simulates one image and appends what was found."""
    program, picture = converted(network), images_of(network, 1, seed=1)
    started = time.perf_counter()
    design: RtlDesign = export(
        program, folder / "rtl", program.quantize_input(picture), form=RtlForm()
    )
    exported = time.perf_counter()
    simulator = build(sources_in(folder / "rtl" / "rtl"), design.parameters, folder / "build")
    built = time.perf_counter()
    report = simulate(folder / "rtl", simulator=simulator)
    finished = time.perf_counter()
    subject = Subject("rtl_simulation", "verilator", network, package="verilator")
    results.number(subject, "integers compared", report.integers, "integers")
    results.number(subject, "mismatches", report.mismatches, "integers")
    results.number(subject, "RTL cycles", report.rtl_cycles, "cycles")
    results.number(subject, "formula's cycles", report.model_cycles, "cycles")
    results.number(subject, "tiles and passes", sum(x.passes for x in report.layers), "passes")
    results.number(subject, "export", exported - started, "s")
    results.number(subject, "build", built - exported, "s")
    results.number(subject, "run and compare", finished - built, "s")
    results.number(subject, "whole", finished - started, "s")
    assert report.passed, str(report.first_mismatch)


def main() -> None:
    """Measures the networks named, or all."""
    results = Results("rtl_simulation")
    for network in sys.argv[1:] or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            measure(network, results, Path(folder))


if __name__ == "__main__":
    main()

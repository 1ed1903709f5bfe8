"""What does reconstruction give back to an ImageNet network at few bits, and how long does it take?

MobileNetV2 at W4A8, calibrated and reconstructed from the same crops of photographs, as integer
programs: how often they name the class that the float network names on other crops, and the
signal-to-noise ratio of their scores; beside peers that calibrate on the same crops.
"""

import argparse
import time

import torch
from torch import Tensor

from few_bit_peers import FLOWS, quantized_by
from ours import Network, as_network
from photomask import zoo
from photomask.chip import (
    PreparedModel,
    align_to_target,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.report import NoiseMeter
from rows import Results, Subject

WHAT = "reconstruction"
NETWORK = "mobilenet_v2"
RECIPE = "w4a8"
WIDTHS = (4, 8)
BATCH = 32
"""Crops at a time."""


def main() -> None:
    """Measures ours and the peers in one run."""
    parser = argparse.ArgumentParser(description="Measures reconstruction beside peers.")
    parser.add_argument("--crops", type=int, default=512, help="to learn from, and to test on")
    parser.add_argument("--iterations", type=int, default=300, help="steps of a block")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peers", nargs="*", default=["Brevitas", "torchao PT2E"])
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, results = zoo.load(NETWORK), Results(WHAT)
    crops, tests = (zoo.photograph_crops(arguments.crops, seed=seed) for seed in (0, 1))
    expected = scores(model, tests)
    device = arguments.device
    name = torch.cuda.get_device_name() if device.startswith("cuda") else None

    def write(subject: Subject, found: Tensor, note: str) -> None:
        alike = (found.argmax(1) == expected.argmax(1)).double().mean()
        meter = NoiseMeter()
        meter.add(expected, found)
        results.number(subject, "agreement", 100 * float(alike), "%", note=note)
        results.number(subject, "sqnr", meter.sqnr_db, "dB", note=note)

    prepared = prepare(model, load_recipe(RECIPE), crops[:1])
    calibrate(prepared, crops)
    note = f"{arguments.crops} crops"
    subject = Subject(WHAT, f"photomask {RECIPE}, calibrated", NETWORK, device=name)
    write(subject, scores(program_of(prepared, device), tests), note)
    start = time.perf_counter()
    settings = ReconstructionSettings(iterations=arguments.iterations)
    reconstruct(prepared, crops, settings=settings, device=device)
    seconds = time.perf_counter() - start
    subject = Subject(WHAT, f"photomask {RECIPE}, reconstructed", NETWORK, device=name)
    note += f", {arguments.iterations} steps a block"
    write(subject, scores(program_of(prepared, device), tests), note)
    results.number(subject, "time", seconds, "s", note=note)
    for peer in arguments.peers:
        run = quantized_by(peer, zoo.load(NETWORK), crops, *WIDTHS, None)
        subject = Subject(WHAT, f"{peer} {RECIPE}, calibrated", NETWORK, FLOWS[peer][1])
        write(subject, scores(run, tests), f"{arguments.crops} crops")


def program_of(prepared: PreparedModel, device: str) -> Network:
    """Returns the integer program as a function of images."""
    target = load_target("asic")
    align_to_target(prepared, target)
    return as_network(convert(prepared, target), device)


@torch.no_grad()
def scores(run: Network, images: Tensor) -> Tensor:
    """Returns the scores of all images."""
    return torch.cat([run(part) for part in images.split(BATCH)])


if __name__ == "__main__":
    main()

"""One measurement of `flow_time.py`, in a process of its own; prints one JSON object."""

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from networks import timm_model
from ours import as_network, float_network, make_program, require_exact
from peers import PEERS
from photomask import zoo
from photomask.chip import calibrate, convert, export, load_recipe, load_target, prepare
from photomask.chip.verification import verify
from photomask.errors import MissingDependencyError
from photomask.report import NoiseMeter

JUDGED = 4
"""Images on which everyone's result is compared with the float model, after the clock stopped."""
TESTED = 16
"""Crops for verification: signal and noise on all, both engines on the first two."""


def run(options: list[str]) -> None:
    """Runs one part and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["flow", "stages"])
    parser.add_argument("--implementation", default="photomask w8a8-minmax")
    parser.add_argument("--recipe", default="w8a8")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(options)
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    answer = flow(arguments) if arguments.part == "flow" else stages(arguments)
    answer.setdefault("peak_gib", peak_gib())
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def flow(arguments: argparse.Namespace) -> dict:
    """Times one implementation on ResNet-18."""
    try:
        model = timm_model("resnet18")
    except MissingDependencyError as error:
        return {"skipped": str(error), "missing": True}
    torch.manual_seed(1)
    images = torch.randn(arguments.images, 3, arguments.size, arguments.size)
    peer = PEERS.get(arguments.implementation)
    package = peer.package if peer else "photomask"
    if peer and peer.missing:
        return {"package": package, "skipped": peer.missing}
    if peer:
        peer.load()
    start = time.perf_counter()
    try:
        if peer:
            made = peer(model, images)
        else:
            program = make_program(model, arguments.implementation.split()[-1], images)
        seconds, peak = time.perf_counter() - start, peak_gib()
        if not peer:
            require_exact(program, images[:1])
            made = as_network(program)
        noise = NoiseMeter()
        noise.add(float_network(model)(images[:JUDGED]), made(images[:JUDGED]))
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the row says how
        return {"package": package, "skipped": f"{type(error).__name__}: {error}"}
    return {
        "package": package,
        "seconds": seconds,
        "peak_gib": peak,
        "sqnr_db": noise.sqnr_db,
    }


def stages(arguments: argparse.Namespace) -> dict:
    """Times our whole flow on MobileNetV2, stage by stage."""
    try:
        model = zoo.load("mobilenet_v2")
    except MissingDependencyError as error:
        return {"skipped": str(error), "missing": True}
    images = zoo.photograph_crops(arguments.images, size=arguments.size)
    test = zoo.photograph_crops(TESTED, size=arguments.size, seed=1)
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    prepared = prepare(model, load_recipe(arguments.recipe), images[:1])
    clock.lap("capture and prepare")
    calibrate(prepared, images)
    clock.lap("calibrate")
    program = convert(prepared, load_target("asic"))
    clock.lap("convert")
    report = verify(
        model, program, test, graph=prepared.graph, oracle_samples=2, multiplier_widths=()
    )
    clock.lap("verify")
    with tempfile.TemporaryDirectory() as folder:
        export(program, Path(folder) / "export", program.quantize_input(test[:2]))
        clock.lap("export")
    return {
        "stages": seconds,
        "mismatches": report.engine.mismatches,
        "sqnr_db": report.outputs[0].sqnr_db,
    }


class _Clock:
    """Writes the seconds since the last lap."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds = seconds
        self._start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = now - self._start
        self._start = now


def peak_gib() -> float:
    """Returns this process's largest resident set so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30

"""How fast is the generated C, on one thread, beside ONNX Runtime's int8 kernels?

One image at a time, in turn, in one process. Both quantize the same float network with the same
calibration images. The C starts from codes, ONNX Runtime from float images, whose quantization is
part of its graph. Nothing is timed before the C has computed the engines' integers.
"""

import argparse
import ctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import peers
from networks import images_for
from ours import RedGateError, make_program
from photomask import zoo
from photomask.chip import IntegerProgram, TorchEngine
from photomask.chip.engines.c_engine import CEngine, compile_library
from photomask.chip.forms.c import CSource, generate_c
from photomask.errors import EngineError, MissingDependencyError
from rows import Results, Subject

WHAT = "c_speed"
C = "photomask C"
COMPILER = "cc -O3 -march=native"
CALIBRATION = 64
PEERS = {
    "ONNX Runtime int8": {"exact": False},
    "ONNX Runtime uint8": {"exact": False, "unsigned": True},
}
GATE_IMAGES = {"mobilenet_v2": 16}


def main() -> int:
    """Gates and times every network; the exit status is 1 if a gate is red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    networks = ["resnet20", "mobilenet_v1", "mobilenet_v2"]
    parser.add_argument("--networks", nargs="*", default=networks, choices=networks)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--gate-images", type=int, help="instead of 256, or 16 of 224×224")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, red = Results(WHAT), False
    for network in arguments.networks:
        try:
            count = arguments.gate_images or GATE_IMAGES.get(network, 256)
            measure(results, network, arguments.repetitions, count)
        except MissingDependencyError as error:
            results.skipped(Subject(WHAT, C, network), str(error))
        except (EngineError, RedGateError) as error:
            results.skipped(Subject(WHAT, C, network), f"red gate: {error}")
            red = True
    return int(red)


def measure(results: Results, network: str, repetitions: int, gate_images: int) -> None:
    """Gates and times one network.

    Raises:
        RedGateError: the C differs from the engine.
    """
    model = zoo.load(network)
    calibration = images_for(network, CALIBRATION)
    program = make_program(model, "w8a8", calibration)
    images = images_for(network, gate_images, seed=1)
    subject = Subject(WHAT, C, network)
    gate(results, subject, program, images)
    source = generate_c(program)
    results.number(subject, "arena", source.arena_bytes, "bytes", note=f"{COMPILER}, one thread")
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        runs[C] = compiled(source, program, images[:1], Path(folder))
        results.number(subject, "compilation", time.perf_counter() - start, "s", note=COMPILER)
        for name, options in PEERS.items():
            if missing := peers.PEERS["ONNX Runtime MinMax"].missing:
                results.skipped(Subject(WHAT, name, network, "onnxruntime"), missing)
                continue
            with peers.quiet():
                score = peers.onnxruntime_static(model, calibration, **options)
            runs[name] = lambda score=score: score(images[:1])
        seconds = alternate(runs, repetitions)
    note = f"one image at a time, one thread, {COMPILER}"
    for name, times in seconds.items():
        package = "photomask" if name == C else "onnxruntime"
        milliseconds = [1e3 * duration for duration in times]
        who = Subject(WHAT, name, network, package)
        results.samples(who, "time per image", milliseconds, "ms", note=note)
    for name in [name for name in PEERS if name in runs]:
        usual = statistics.median(seconds[name])
        ratios = [duration / usual for duration in seconds[C]]
        results.samples(subject, f"time over {name}", ratios, "ratio", note=note)


def gate(results: Results, subject: Subject, program: IntegerProgram, images: Tensor) -> None:
    """Compares the compiled program with the torch engine, which equals the oracle.

    Raises:
        RedGateError: an output integer differs.
    """
    codes = {program.inputs[0]: program.quantize_input(images)}
    found = CEngine(program, compiler=COMPILER).run({n: x.numpy() for n, x in codes.items()})
    integers = mismatches = 0
    for name, expected in TorchEngine(program).run(codes).items():
        integers += expected.numel()
        mismatches += int(np.count_nonzero(found[name] != expected.numpy()))
    note = f"{len(images)} images, all outputs"
    results.number(subject, "integers", integers, "integers", note=note)
    results.number(subject, "mismatches", mismatches, "integers", note=note)
    if mismatches:
        raise RedGateError(f"{mismatches} of {integers} integers differ from the torch engine")


def compiled(
    source: CSource, program: IntegerProgram, image: Tensor, folder: Path
) -> Callable[[], object]:
    """Returns one run of the compiled network on an image's codes."""
    return compiled_codes(source, program.quantize_input(image).numpy(), folder)


def compiled_codes(source: CSource, codes: np.ndarray, folder: Path) -> Callable[[], object]:
    """Returns one run of a compiled program with one input on the codes of that input."""
    library = ctypes.CDLL(str(compile_library(source, COMPILER, folder)))
    x = source.tensors[source.inputs[0]]
    memory = np.ascontiguousarray(codes.transpose(x.order), x.ctype.removesuffix("_t"))
    results = [
        np.empty(source.tensors[name].elements, source.tensors[name].ctype.removesuffix("_t"))
        for name in source.outputs
    ]
    arrays = [memory, *results]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]

    def run() -> list[np.ndarray]:
        if library[f"{source.name}_run"](*pointers):
            raise EngineError("the compiled program refused its input")
        return arrays

    return run


def alternate(runs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Returns seconds by implementation; some warm-up, then each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 5):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repetition >= 5:
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    sys.exit(main())

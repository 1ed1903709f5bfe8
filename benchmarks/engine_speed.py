"""How fast is the torch engine, beside the float model it came from and the NumPy oracle?

Batches alternate between the implementations in one process. The float model runs in both memory
formats, and the engine is held against both. Nothing is timed before the engine has
computed the oracle's integers on every edge.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from networks import images_for
from ours import RedGateError, make_program, require_exact
from photomask import zoo
from photomask.chip import IntegerProgram, NumpyEngine, TorchEngine
from photomask.errors import MissingDependencyError
from rows import Results, Subject

WHAT = "engine_speed"
BATCHES = {"mobilenet_v2": 16, "resnet20": 128, "mobilenet_v1": 128}
FLOAT = "float"
CHANNELS_LAST = "float, channels last"
ENGINE = "photomask torch engine"
ORACLE = "photomask numpy oracle"

Run = Callable[[], object]


def main() -> int:
    """Times every network; the exit status is 1 if a gate is red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--batch", type=int, help="images at a time, instead of the usual")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--gate-images", type=int, default=2, help="for engine and oracle")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results, red = Results(WHAT), False
    for network in arguments.networks:
        try:
            measure(results, network, arguments)
        except MissingDependencyError as error:
            results.skipped(Subject(WHAT, ENGINE, network), str(error))
        except RedGateError as error:
            results.skipped(Subject(WHAT, ENGINE, network), f"red gate: {error}")
            red = True
    return int(red)


def measure(results: Results, network: str, arguments: argparse.Namespace) -> None:
    """Gates and times one network.

    Raises:
        RedGateError: the engine differs from the oracle.
    """
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    batch = arguments.batch or BATCHES[network]
    model = zoo.load(network)
    program = make_program(model, "w8a8", images_for(network, 16))
    images = images_for(network, batch, seed=1)
    gate = images[: arguments.gate_images]
    require_exact(program, gate, device=arguments.device)
    runs = implementations(model, program, images, device)
    seconds = alternate(runs, arguments.repetitions, device)
    note = f"batches of {batch}, {torch.get_num_threads()} threads"
    for implementation, times in seconds.items():
        subject = Subject(WHAT, implementation, network, _package(implementation), name)
        speeds = [batch / duration for duration in times]
        results.samples(subject, "speed", speeds, "images/s", note=note)
    subject = Subject(WHAT, ENGINE, network, device=name)
    for baseline in (FLOAT, CHANNELS_LAST):
        usual = statistics.median(seconds[baseline])
        ratios = [usual / duration for duration in seconds[ENGINE]]
        results.samples(subject, f"speed over {baseline}", ratios, "ratio", note=note)
    start = time.perf_counter()
    NumpyEngine(program).run({program.inputs[0]: program.quantize_input(gate).numpy()})
    speed = len(gate) / (time.perf_counter() - start)
    note = f"one batch of {len(gate)}"
    results.number(Subject(WHAT, ORACLE, network), "speed", speed, "images/s", note=note)


def implementations(
    model: nn.Module, program: IntegerProgram, images: Tensor, device: torch.device
) -> dict[str, Run]:
    """Returns what is timed; the engine starts from float images, as the model does."""
    contiguous = model.to(device)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    images = images.to(device)
    images_last = images.contiguous(memory_format=torch.channels_last)
    engine = TorchEngine(program, device)

    def run_float(module: nn.Module, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(batch)

    return {
        FLOAT: lambda: run_float(contiguous, images),
        CHANNELS_LAST: lambda: run_float(last, images_last),
        ENGINE: lambda: engine.run({program.inputs[0]: program.quantize_input(images)}),
    }


def alternate(
    runs: dict[str, Run], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Returns seconds by implementation; one warm-up, then each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            _synchronize(device)
            start = time.perf_counter()
            run()
            _synchronize(device)
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _package(implementation: str) -> str:
    return "photomask" if implementation.startswith("photomask") else "torch"


if __name__ == "__main__":
    sys.exit(main())

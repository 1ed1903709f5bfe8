"""How fast is the generated C of one layer with zeros, beside the same layer without them?

One layer and its requantization at a time, on one thread. The layers are those of ResNet-20 on
images of 32×32 and 28×28 pixels, and linear layers. A layer without zeros is computed by the dense
code. The same layer with zeros runs in turn with it, in one process, and its time is divided by the
dense time of the same turn. Nothing is timed before the C has computed the oracle's integers.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c_speed import COMPILER, alternate, compiled_codes
from ours import RedGateError
from photomask.chip import IntegerProgram, NumpyEngine
from photomask.chip.engines.c_engine import CEngine
from photomask.chip.formats import IntFormat
from photomask.chip.forms.c import generate_c
from photomask.chip.operators import Convolution, Linear
from random_program.builder import ProgramBuilder
from rows import Results, Subject

WHAT = "sparse_c"
C = "photomask C"
INT8 = IntFormat(bits=8, signed=True)
BLOCK = 8
"""The outputs and the inputs of a block, at one kernel position."""


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        outputs: the output channels.
        inputs: the input channels.
        size: the rows and columns of the input, or the rows of a linear layer.
        kernel: the rows and columns of the kernel; 0 for a linear layer.
        stride: of a convolution.
    """

    outputs: int
    inputs: int
    size: int
    kernel: int = 3
    stride: int = 1

    def __str__(self) -> str:
        if not self.kernel:
            return f"linear {self.inputs} to {self.outputs}, {self.size} rows"
        stride = f" /{self.stride}" if self.stride > 1 else ""
        side = f"{self.kernel}x{self.kernel}"
        return f"{side}{stride}, {self.inputs} to {self.outputs}, {self.size}x{self.size}"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape [outputs, inputs, *kernel]."""
        return (self.outputs, self.inputs, *(self.kernel,) * (2 if self.kernel else 0))

    def program(self, weight: np.ndarray) -> tuple[IntegerProgram, np.ndarray]:
        """Returns the layer as a program, and codes for its input."""
        make = ProgramBuilder()
        side = (self.size, self.size) if self.kernel else ()
        shape = (1, self.inputs, *side) if self.kernel else (1, self.size, self.inputs)
        if not self.kernel and self.size == 1:
            shape = (1, self.inputs)
        x = make.input("x", shape)
        padding = self.kernel // 2
        operator = (
            Convolution(
                stride=(self.stride,) * 2,
                padding=((padding, padding),) * 2,
                dilation=(1, 1),
                groups=1,
                padding_value=3,
            )
            if self.kernel
            else Linear()
        )
        tensors = {"weight": weight, "bias": make.random.integers(-999, 999, self.outputs)}
        formats = {"weight": INT8, "bias": IntFormat(bits=32, signed=True)}
        sums = make.step("layer", operator, [x], tensors, formats)
        shift = 16 + int(math.log2(weight[0].size) / 2) + 6
        output = make.requantize("codes", sums, INT8, shift=shift)
        return make.build(output), make.codes(1)["x"]


LAYERS = (
    Layer(16, 16, 32),
    Layer(32, 16, 32, stride=2),
    Layer(32, 32, 16),
    Layer(64, 32, 16, stride=2),
    Layer(64, 64, 8),
    Layer(16, 16, 28),
    Layer(32, 32, 14),
    Layer(64, 64, 7),
    Layer(128, 128, 14, kernel=1),
    Layer(256, 256, 1, kernel=0),
    Layer(512, 512, 1, kernel=0),
    Layer(192, 192, 64, kernel=0),
)


def patterns(layer: Layer) -> dict[str, np.ndarray]:
    """Returns the weight of a layer without zeros, and with zeros of each kind."""
    random = np.random.default_rng(0)
    weight = random.integers(1, 128, layer.weight_shape) * random.choice(
        [-1, 1], layer.weight_shape
    )
    outputs, inputs, *kernel = layer.weight_shape
    ranks = random.random((outputs, inputs // 4, 4, *kernel)).argsort(axis=2).argsort(axis=2)
    found = {"dense": weight, "2:4": weight * (ranks < 2).reshape(weight.shape)}
    scattered = random.random(weight.shape) < 0.2
    found["80 % scattered"] = weight * scattered
    grid = (outputs // BLOCK, inputs // BLOCK, *kernel)
    ranks = random.permutation(math.prod(grid)).reshape(grid)
    for name, share in (("80 % tiles", 0.2), ("50 % tiles", 0.5)):
        blocks = ranks < round(share * ranks.size)
        found[name] = weight * blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return found


def main() -> int:
    """Gates and times every layer; the exit status is 1 if a gate is red."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", nargs="*", type=int, help="numbers of layers; default: all")
    parser.add_argument("--repetitions", type=int, default=300)
    arguments = parser.parse_args()
    results, red = Results(WHAT), False
    chosen = LAYERS if arguments.layers is None else [LAYERS[n] for n in arguments.layers]
    for layer in chosen:
        try:
            measure(results, layer, arguments.repetitions)
        except RedGateError as error:
            results.skipped(Subject(WHAT, C, str(layer)), f"red gate: {error}")
            red = True
    return int(red)


def measure(results: Results, layer: Layer, repetitions: int) -> None:
    """Gates and times one layer.

    Raises:
        RedGateError: the C differs from the oracle.
    """
    runs: dict[str, Callable[[], object]] = {}
    note = f"one thread, {COMPILER}"
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, weight) in enumerate(patterns(layer).items()):
            program, codes = layer.program(weight)
            gate(program, codes)
            source = generate_c(program)
            place = Path(folder, str(number))
            place.mkdir()
            runs[name] = compiled_codes(source, codes, place)
        seconds = alternate(runs, repetitions)
    for name, times in seconds.items():
        who = Subject(WHAT, f"{C}, {name}", str(layer))
        results.samples(who, "time", [1e6 * duration for duration in times], "us", note=note)
        if name != "dense":
            ratios = [
                duration / beside for duration, beside in zip(times, seconds["dense"], strict=True)
            ]
            results.samples(who, "time over dense", ratios, "ratio", note=note)


def gate(program: IntegerProgram, codes: np.ndarray) -> None:
    """Compares the compiled layer with the oracle.

    Raises:
        RedGateError: an integer differs.
    """
    found = CEngine(program, compiler=COMPILER).run({"x": codes})
    for name, expected in NumpyEngine(program).run({"x": codes}).items():
        if wrong := int(np.count_nonzero(found[name] != expected)):
            raise RedGateError(f"{wrong} of {expected.size} integers differ from the oracle")


if __name__ == "__main__":
    sys.exit(main())

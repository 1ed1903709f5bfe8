"""Programs whose weights hold zeros: single ones, whole tiles, and whole blocks of outputs."""

import numpy as np
from tests.chip.programs import ProgramBuilder

from photomask.chip.formats import IntFormat
from photomask.chip.operators import Convolution, Linear, Reshape
from photomask.chip.program import IntegerProgram

INT8, INT32 = IntFormat(bits=8, signed=True), IntFormat(bits=32, signed=True)


def with_zero_blocks(
    random: np.random.Generator, weight: np.ndarray, inputs: int, outputs: int, kept: float
) -> np.ndarray:
    """A copy in which only a part of the blocks of `outputs` × `inputs` weights is not zero."""
    found = weight.copy()
    for o in range(0, weight.shape[0], outputs):
        for i in range(0, weight.shape[1], inputs):
            for position in np.ndindex(weight.shape[2:]):
                if random.random() >= kept:
                    found[(slice(o, o + outputs), slice(i, i + inputs), *position)] = 0
    return found


def with_n_of_m(random: np.random.Generator, weight: np.ndarray, kept: int, group: int):
    """A copy in which at most `kept` of `group` consecutive inputs are not zero."""
    found = weight.copy()
    for o in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group):
            size = len(found[o, start : start + group])
            for position in np.ndindex(weight.shape[2:]):
                lost = random.permutation(size)[kept:]
                found[(o, start + lost, *position)] = 0
    return found


class SparseProgram(ProgramBuilder):
    """Layers whose weights are given, each requantized."""

    def layer(self, name: str, x: str, weight: np.ndarray, *, zero_point: int = 0, **fields) -> str:
        """Adds a convolution of a map, or a linear layer of anything else."""
        tensors = {"weight": weight, "bias": self.random.integers(-9999, 9999, len(weight))}
        if zero_point:
            tensors["weight"] = weight + zero_point
            tensors["weight_zero_point"] = np.full(len(weight), zero_point)
        formats = {"weight": INT8, "bias": INT32, "weight_zero_point": INT8}
        operator = Linear()
        if weight.ndim == 4:
            operator = Convolution(
                **{
                    "stride": (1, 1),
                    "padding": ((1, 1), (1, 1)),
                    "dilation": (1, 1),
                    "groups": 1,
                    "padding_value": 0,
                }
                | fields
            )
        sums = self.step(name, operator, [x], tensors, formats)
        return self.requantize(f"{name}:requantize", sums, INT8, shift=25)


def tile_sparse(seed: int, kept: float) -> tuple[IntegerProgram, np.ndarray]:
    """Convolutions and a linear layer in which blocks of 4 × 4 weights are zero."""
    make = SparseProgram(seed=seed)

    def weight(*shape: int) -> np.ndarray:
        dense = make.random.integers(-60, 60, shape)
        return with_zero_blocks(make.random, dense, 4, 4, kept)

    a = make.layer("padded", make.input("x", (1, 6, 5, 4)), weight(10, 6, 3, 3), padding_value=-77)
    b = make.layer("shifted", a, weight(8, 10, 1, 1), zero_point=5, padding=((0, 0), (0, 0)))
    c = make.layer("grouped", b, weight(8, 4, 3, 3), groups=2, stride=(2, 1))
    size = int(np.prod(make.edges[c].shape))
    d = make.step("flat", Reshape(shape=(size,)), [c], format=INT8)
    program = make.build(make.layer("linear", d, weight(9, size)))
    return program, make.codes(1)["x"]


def two_of_four(seed: int) -> tuple[IntegerProgram, np.ndarray]:
    """Layers that keep 2:4, one that nearly does, a dense one, and one with zero blocks too."""
    make = SparseProgram(seed=seed)

    def kept(*shape: int) -> np.ndarray:
        return with_n_of_m(make.random, make.random.integers(-60, 60, shape), 2, 4)

    a = make.layer("first", make.input("x", (1, 3, 5, 4)), kept(12, 3, 3, 3), padding_value=-77)
    b = make.layer("kept", a, kept(10, 12, 3, 3), zero_point=-3, padding_value=9)
    nearly = kept(16, 10, 1, 1)
    nearly[5, 4:8] = 7
    c = make.layer("nearly", b, nearly, padding=((0, 0), (0, 0)))
    d = make.layer("grouped", c, kept(12, 8, 3, 3), groups=2, stride=(2, 1))
    e = make.layer("dense", d, make.random.integers(1, 60, (8, 12, 1, 1)))
    f = make.layer("both", e, with_zero_blocks(make.random, kept(8, 8, 3, 3), 8, 4, 0.4))
    size = int(np.prod(make.edges[f].shape))
    g = make.step("flat", Reshape(shape=(size,)), [f], format=INT8)
    program = make.build(make.layer("linear", g, kept(9, size)))
    return program, make.codes(1)["x"]

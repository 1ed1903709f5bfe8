"""Small integer programs, made by hand."""

import numpy as np
from benchmarks.random_program.builder import ProgramBuilder

from photomask.chip.formats import IntFormat
from photomask.chip.operators import (
    Add,
    Linear,
    MaxPool,
    Reshape,
)
from photomask.chip.program import IntegerProgram
from photomask.chip.target import PRESETS, Target


def small_builder(target: Target = PRESETS["asic"]) -> tuple[ProgramBuilder, str]:
    """Convolution, requantization, residual addition, max pooling, linear on 2×6×6 inputs."""
    int8 = IntFormat(bits=8, signed=True)
    make = ProgramBuilder(target)
    x = make.input("x", (1, 2, 6, 6))
    a = make.convolution("layer1.conv", x, 4)
    b = make.requantize("layer1.conv:requantize", a, int8)
    c = make.convolution("layer2.conv", b, 4, bits=4)
    d = make.requantize("layer2.conv/requantize", c, IntFormat(bits=4, signed=False), shift=24)
    e = make.step("residual", Add(coefficients=(3, 1), bias=-2), [d, b])
    f = make.requantize("residual_requantize", e, int8, shift=17)
    g = make.step(
        "pool",
        MaxPool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), output_size=(3, 3), dilation=(1, 1)),
        [f],
        format=int8,
    )
    h = make.step("flatten", Reshape(shape=(36,)), [g], format=int8)
    i = make.step(
        "classifier",
        Linear(),
        [h],
        {
            "weight": make.random.integers(-128, 128, (5, 36)),
            "bias": make.random.integers(-9999, 9999, 5),
        },
        {"weight": int8, "bias": IntFormat(bits=32, signed=True)},
    )
    return make, make.requantize("logits", i, int8)


def small_program(
    target: Target = PRESETS["asic"], batch: int = 2
) -> tuple[IntegerProgram, np.ndarray]:
    """The program of `small_builder` and codes for its input `x`."""
    make, output = small_builder(target)
    return make.build(output), make.codes(batch)["x"]

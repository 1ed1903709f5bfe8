"""Small integer programs, made by hand."""

from collections.abc import Sequence

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.operators import (
    Add,
    Convolution,
    Linear,
    MaxPool,
    Operator,
    Requantize,
    Reshape,
)
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.target import PRESETS, Target


class ProgramBuilder:
    """Adds steps one by one; shapes and intervals of edges follow from the operators."""

    def __init__(self, target: Target = PRESETS["asic"], seed: int = 0):
        self.target = target
        self.random = np.random.default_rng(seed)
        self.edges: dict[str, Edge] = {}
        self.steps: list[Step] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.formats: dict[str, IntFormat] = {}
        self.inputs: list[str] = []

    def input(self, name: str, shape: tuple[int, ...], bits: int = 8, signed: bool = True) -> str:
        format = IntFormat(bits=bits, signed=signed)
        self.inputs.append(name)
        self._add_edge(name, shape, format, format.low, format.high, "input")
        return name

    def step(
        self,
        name: str,
        operator: Operator,
        inputs: Sequence[str],
        tensors: dict[str, np.ndarray] | None = None,
        formats: dict[str, IntFormat] | None = None,
        *,
        format: IntFormat | None = None,
        output: str | None = None,
    ) -> str:
        tensors = tensors or {}
        edges = [self.edges[i] for i in inputs]
        interval = operator.output_interval([e.interval for e in edges], tensors)
        output = output or name
        role = "accumulator" if format is None else "activation"
        self._add_edge(
            output,
            operator.output_shape([e.shape for e in edges], tensors),
            format or IntFormat(bits=self.target.accumulator_bits, signed=True),
            interval.low,
            interval.high,
            role,
        )
        self.steps.append(
            Step.model_construct(
                name=name,
                operator=operator,
                inputs=tuple(inputs),
                output=output,
                tensors={role: f"{name}.{role}" for role in tensors},
                node=f"node_{name}",
                source="model.py:1",
                relative_error=0.0,
            )
        )
        for role, tensor in tensors.items():
            self.tensors[f"{name}.{role}"] = tensor
            self.formats[f"{name}.{role}"] = (formats or {})[role]
        return output

    def convolution(
        self, name: str, x: str, channels: int, *, kernel: int = 3, stride: int = 1, bits: int = 8
    ) -> str:
        low = -(1 << (bits - 1))
        shape = (channels, self.edges[x].shape[1], kernel, kernel)
        return self.step(
            name,
            Convolution(
                stride=(stride, stride),
                padding=((kernel // 2, kernel // 2),) * 2,
                dilation=(1, 1),
                groups=1,
                padding_value=0,
            ),
            [x],
            {
                "weight": self.random.integers(low, -low, shape),
                "bias": self.random.integers(-1000, 1000, channels),
            },
            {
                "weight": IntFormat(bits=bits, signed=True),
                "bias": IntFormat(bits=self.target.bias_bits, signed=True),
            },
        )

    def requantize(self, name: str, x: str, format: IntFormat, *, shift: int = 24) -> str:
        rank = len(self.edges[x].shape)
        channels = self.edges[x].shape[1] if rank == 4 else 1
        shape = (channels,) + (1,) * (rank - 2)
        return self.step(
            name,
            Requantize(
                rounding=self.target.rounding,
                offset=0,
                zero_point=0,
                low=format.low,
                high=format.high,
            ),
            [x],
            {
                "multiplier": self.random.integers(1 << 15, 1 << 16, shape),
                "shift": np.full(shape, shift, dtype=np.int64),
            },
            {
                "multiplier": IntFormat(bits=self.target.multiplier_bits, signed=False),
                "shift": IntFormat(bits=6, signed=False),
            },
            format=format,
        )

    def build(self, *outputs: str) -> IntegerProgram:
        return IntegerProgram(
            target=self.target,
            inputs=self.inputs,
            outputs=outputs,
            edges=list(self.edges.values()),
            steps=self.steps,
            tensors=self.tensors,
            formats=self.formats,
            provenance={"made_by": "a test"},
        )

    def codes(self, batch: int) -> dict[str, np.ndarray]:
        return {
            name: self.random.integers(
                self.edges[name].low,
                self.edges[name].high + 1,
                (batch, *self.edges[name].shape[1:]),
            )
            for name in self.inputs
        }

    def _add_edge(
        self, name: str, shape: tuple[int, ...], format: IntFormat, low: int, high: int, role: str
    ) -> None:
        self.edges[name] = Edge(
            name=name,
            shape=shape,
            format=format,
            low=low,
            high=high,
            scale=(0.5,),
            zero_point=0,
            role=role,  # type: ignore[arg-type]
        )


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

"""Makes an integer program step by step."""

from collections.abc import Sequence

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.operators import Convolution, Operator, Requantize
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
        """Adds an input."""
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
        """Adds a step; without a format its output is an accumulator."""
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
        """Adds a convolution with random weights."""
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
        """Adds a rescaling with random multipliers."""
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
        """Returns the program with these outputs."""
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
        """Draws random codes for every input."""
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

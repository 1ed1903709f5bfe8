"""A program that grows by random steps."""

import math

import numpy as np

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.operators import Constant, Operator, Requantize
from photomask.chip.program import Edge
from photomask.chip.program.program import MANY
from photomask.chip.target import Rounding, Target

from .builder import ProgramBuilder
from .source import Source

MOST_STEPS = 12
MOST_ELEMENTS = 1200
"""Of one edge."""


class IllegalError(ValueError):
    """What was drawn does not fit the program so far; another draw may."""


class Growth(ProgramBuilder):
    """A program that grows by random steps."""

    def __init__(self, source: Source):
        multiplier_bits = source.pick(8, 15, 16, 24, 31)
        accumulator_bits = source.pick(20, 32, 32, 32, 48)
        super().__init__(
            Target(
                name="random",
                rounding=source.pick(*Rounding),
                multiplier_bits=min(multiplier_bits, 63 - accumulator_bits),
                accumulator_bits=accumulator_bits,
                bias_bits=min(32, accumulator_bits),
                shift_max=62,
                activation_bits=tuple(range(1, 17)),
                weight_bits=tuple(range(1, 17)),
                activation_layout=source.pick("channels_first", "channels_last"),
                per_channel_shift=source.chance(),
            )
        )
        self.source = source

    @property
    def is_wide(self) -> bool:
        """Whether sums may need more than 32 bits."""
        return self.target.accumulator_bits > 32

    def activation_format(self) -> IntFormat:
        """Draws the format of an activation."""
        widths = (8, 16, 16) if self.is_wide else (1, 2, 3, 4, 6, 8, 8, 8, 8, 11, 16)
        bits = self.source.pick(*widths)
        return IntFormat(bits=bits, signed=bits > 1 and self.source.chance())

    def new_input(self) -> None:
        """Adds a random input."""
        spatial = [self.source.integer(1, 7) for _ in range(self.source.pick(0, 1, 2, 2, 2))]
        shape = (1, self.source.integer(1, 6), *spatial)
        format = self.activation_format()
        name = f"input_{len(self.inputs)}"
        self.input(name, shape, format.bits, format.signed)
        if self.source.integer(0, 5) == 0 and format.bits > 2:
            low = self.source.integer(format.low, 0)
            self.edges[name] = self.edges[name].model_copy(update={"low": low})

    def pick_edge(self, *ranks: int, widest: int = 64) -> Edge:
        """An edge of one of these ranks (any if none is named), the later ones more often."""
        fitting = [
            edge
            for edge in self.edges.values()
            if (not ranks or len(edge.shape) in ranks) and edge.format.bits <= widest
        ]
        if not fitting:
            raise IllegalError("no such edge")
        back = min(self.source.integer(0, len(fitting) - 1), self.source.integer(0, 3))
        return fitting[-1 - back]

    def append(
        self,
        operator: Operator,
        inputs: list[Edge],
        tensors: dict[str, np.ndarray] | None = None,
        format: IntFormat | None = None,
    ) -> Edge:
        """Adds a step; `format` None makes its output an accumulator."""
        if len(self.steps) == MOST_STEPS:
            raise IllegalError("the program is full")
        shapes = [edge.shape for edge in inputs]
        shape = operator.output_shape(shapes, tensors or {})
        if math.prod(shape) > MOST_ELEMENTS or min(shape) < 1:
            raise IllegalError("too large, or empty")
        self._check_batches(operator, inputs, tensors or {}, shape)
        formats = {
            role: IntFormat.holding(Interval(int(t.min()), int(t.max())))
            for role, t in (tensors or {}).items()
        }
        name = f"{operator.kind}.{len(self.steps)}"
        names = [edge.name for edge in inputs]
        return self.edges[self.step(name, operator, names, tensors, formats, format=format)]

    def grows(self, edge: str) -> bool:
        """Tells whether an edge has rows for every sample; constants have not."""
        maker = next((step for step in self.steps if step.output == edge), None)
        return maker is None or any(self.grows(name) for name in maker.inputs)

    def _check_batches(
        self,
        operator: Operator,
        inputs: list[Edge],
        tensors: dict[str, np.ndarray],
        shape: tuple[int, ...],
    ) -> None:
        """Refuses a step whose rows do not grow with the batch, as every program must.

        An edge may have several rows for each sample, and a constant has the same rows for any
        batch: what broadcasts for one sample may then not broadcast for many.
        """
        batches = [MANY if self.grows(edge.name) else 1 for edge in inputs]
        many = [(n * e.shape[0], *e.shape[1:]) for n, e in zip(batches, inputs, strict=True)]
        if operator.output_shape(many, tensors) != (max(batches, default=1) * shape[0], *shape[1:]):
            raise IllegalError("mixes samples")

    def finish(self, accumulator: Edge) -> None:
        """Requantizes an accumulator, most of the time."""
        if self.source.integer(0, 5):
            self.requantize_edge(accumulator)

    def requantize_edge(self, x: Edge) -> None:
        """Rescales an edge to a random format."""
        source, format = self.source, self.activation_format()
        ones = (1,) * (len(x.shape) - 2)
        per_channel = (x.shape[1], *ones)
        factors = source.pick((1,), (1,), per_channel, per_channel, (x.shape[-1],), x.shape[1:])
        bits = self.target.multiplier_bits
        multiplier = source.codes(Interval(0, (1 << bits) - 1), factors)
        if source.integer(0, 3):
            multiplier |= 1 << (bits - 1)
        # Around the shift that brings the input to the output's width, and sometimes any.
        middle = max(0, x.interval.bits + bits - format.bits)
        low, high = max(0, min(58, middle - 3)), min(62, middle + 3)
        if source.integer(0, 4) == 0:
            low, high = 0, 62
        shift = source.rng.integers(low, high, factors, endpoint=True)
        if source.integer(0, 3) == 0:  # few odd bits: many results are ties
            power = source.integer(0, bits - 3)
            multiplier = source.rng.choice([1, 3, 5, 7], factors) << power
            shift = power + source.rng.integers(0, 6, factors, endpoint=True)
        if not self.target.per_channel_shift:
            shift = np.full(factors, shift.flat[0])
        zero_point = source.pick(0, 0, source.inside(format.interval))
        operator = Requantize(
            rounding=self.target.rounding,
            offset=source.pick(0, 0, -source.inside(x.interval)),
            zero_point=zero_point,
            low=source.pick(format.low, format.low, zero_point),
            high=format.high,
        )
        self.append(operator, [x], {"multiplier": multiplier, "shift": shift}, format)

    def constant_like(self, shape: tuple[int, ...]) -> Edge:
        """Adds a random constant of a shape."""
        format = self.activation_format()
        value = self.source.codes(format.interval, (1, *shape[1:]))
        return self.append(Constant(), [], {"value": value}, format)


def kept(x: Edge) -> IntFormat | None:
    """The format of what moves the integers of `x`; an accumulator stays one."""
    return None if x.role == "accumulator" else x.format

"""Defines the base class of float operations, with the properties that every operation states.

Each property is an attribute of the operation's class, and every part of the pipeline reads it
there. A class that leaves one out cannot be defined, so that no part of the pipeline guesses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from torch import Tensor

from photomask.errors import OperatorError

Constants = Mapping[str, Tensor]
"""The constant tensors of a node by role."""


class OutputScale(Enum):
    """The origin of the scale of an operation's output."""

    OWN = auto()
    """The output has a quantizer of its own."""
    KEPT = auto()
    """The output has the scale of the first input, whose values are only moved or selected."""
    ROUNDED = auto()
    """The output has the scale of the first input, and new values are rounded to its codes."""
    NONE = auto()
    """The output has no scale, because it is integers already."""


class Accumulates(Enum):
    """What an operation accumulates before requantization; `photomask.chip.units` has the units."""

    NOTHING = auto()
    """It accumulates nothing: the codes of the result are moved, looked up or given."""
    CODES = auto()
    """It accumulates codes of an input."""
    WEIGHTED = auto()
    """It accumulates products of an input's codes and the codes of the constant `weight`."""
    PRODUCTS = auto()
    """It accumulates products of the codes of two inputs."""
    ALIGNED = auto()
    """It accumulates codes of inputs, each times an integer that aligns the inputs' scales."""
    SHARES = auto()
    """Its accumulator holds shares of a whole, which is a power of two (softmax)."""
    NORMALS = auto()
    """Its accumulator holds numbers of variance 1 times the codes of the constant `gain`."""


class IntegerUse(Enum):
    """The use that an operation makes of an integer input, which has no scale."""

    MOVES = auto()
    """The operation moves the integers unchanged."""
    ROWS = auto()
    """The integers are indices of a table's rows."""
    MASK = auto()
    """The integers are a mask; elements where it is 0 are left out."""


@dataclass(frozen=True)
class Operation:
    """A function of edges and constant tensors.

    A class states all properties below, or inherits them from a class that does. A base class that
    is no operation itself is declared with `abstract=True`.
    """

    output_scale: ClassVar[OutputScale]
    """The origin of the output's scale."""
    accumulates: ClassVar[Accumulates]
    """What the operation accumulates before requantization."""
    takes_clamp: ClassVar[bool]
    """True if a ReLU or clamp after it becomes the bounds of its requantization."""
    multiplies: ClassVar[bool]
    """True if the products need the hardware's multipliers, whose width the operands decide."""
    moves: ClassVar[bool]
    """True if every element of the result is an element of an input, decided by its position."""
    channel_axis: ClassVar[int | None]
    """The axis of the result, 1 or -1, along which rescaling may differ; None if it may not."""
    factor_role: ClassVar[str]
    """The constant whose rows are channels, which absorbs channel factors; empty if none does."""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]]
    """By position of the input, the use of an integer input; None if it must not be integers."""
    sums: ClassVar[bool]
    """True if the operation sums along axes of its inputs, which `summed_axes` returns."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        """Refuses a class that leaves out a property.

        Args:
            abstract: True for a class that is only a base class.

        Raises:
            OperatorError: properties are missing; the message names them.
        """
        super().__init_subclass__()
        missing = [name for name in FACTS if not abstract and not hasattr(cls, name)]
        if not (abstract or missing) and cls.sums and cls.summed_axes is Operation.summed_axes:
            missing.append("summed_axes")
        if missing:
            raise OperatorError(
                f"the float operation {cls.__name__} does not state {', '.join(missing)}: every "
                "operation must state all class variables of "
                "photomask.chip.graph.operations.Operation"
            )

    @property
    def kind(self) -> str:
        """The name of the operation in recipes, such as `convolution` or `max_pool`."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    @property
    def keeps_scale(self) -> bool:
        """True if the output has the scale of the first input."""
        return self.output_scale in (OutputScale.KEPT, OutputScale.ROUNDED)

    @property
    def decides_scale(self) -> bool:
        """True if the output has a quantizer of its own."""
        return self.output_scale is OutputScale.OWN

    @property
    def is_quantized(self) -> bool:
        """True if the output is rounded to codes; false if values are only moved or selected."""
        return self.output_scale in (OutputScale.OWN, OutputScale.ROUNDED)

    @property
    def makes_values(self) -> bool:
        """True if an output with the input's scale can hold values beyond the input's range.

        Padding with -infinity does not count, because the lowest code replaces it.
        """
        return False

    @property
    def divides(self) -> bool:
        """True if the rescaling also divides by a count, which needs a multiplication."""
        return False

    @property
    def product_factor(self) -> float:
        """A constant factor of all products of two inputs, which becomes part of the rescaling."""
        return 1.0

    def channels_in(self, axes: int) -> int:
        """Returns the channel axis of a result with a number of axes, counted from 0.

        Raises:
            OperatorError: the operation has no axis whose channels are rescaled separately.
        """
        if self.channel_axis is None:
            raise OperatorError(
                f"the operation {self.kind} has no axis whose channels are rescaled separately; "
                "check that `channel_axis` is not None first"
            )
        return self.channel_axis % axes

    def use_of_integers(self, position: int) -> IntegerUse | None:
        """Returns the use of an integer input, or None if the input must not be integers."""
        return self.integer_inputs[position] if position < len(self.integer_inputs) else None

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of an input along which the operation sums, counted from 0.

        Args:
            position: the position of the input.
            shape: the shape of the input.
        """
        return frozenset()

    @property
    def ignores_zeros(self) -> bool:
        """True if elements that are 0 change no result, so that leaving them out changes none."""
        return self.sums and not self.divides and self.accumulates in ZEROS_VANISH

    def mixed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of an input along which one result depends on several elements.

        They are the summed axes, and those of windows and margins. Along every other axis, an
        element of the result depends on the elements at the same place only.

        Args:
            position: the position of the input.
            shape: the shape of the input.
        """
        return self.summed_axes(position, shape)

    def aligned(self, position: int, x: Tensor) -> Tensor:
        """Returns an input with the axes that the inputs share at the same places.

        An axis that only other inputs have is one of size 1.
        """
        return x

    def constant_axes(self, role: str, axes: int, rank: int) -> tuple[int | None, ...]:
        """Returns for each axis of a constant the axis of the result along which it runs, or None.

        Args:
            role: the role of the constant.
            axes: the number of axes of the constant.
            rank: the number of axes of the result.
        """
        return tuple(range(rank - axes, rank))

    def axis_behind(self, axis: int) -> int | None:
        """Returns the axis of the output that an axis of the input becomes, or None.

        None means that no single axis of the output corresponds to it. The method is for operations
        whose output holds values of the input.
        """
        return axis

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the output, computed in float."""
        raise NotImplementedError


ZEROS_VANISH = (Accumulates.CODES, Accumulates.WEIGHTED, Accumulates.PRODUCTS)
"""What a sum must accumulate so that a summand of 0 changes nothing."""
FACTS = (
    "output_scale",
    "accumulates",
    "takes_clamp",
    "multiplies",
    "moves",
    "channel_axis",
    "factor_role",
    "integer_inputs",
    "sums",
)
"""The properties that a class must state besides its methods."""

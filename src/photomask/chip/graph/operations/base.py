"""What every float operation says about itself.

Each fact stands on the operation that it is about, and whoever needs it asks the operation. A class
that leaves one out cannot be defined, so that no part of the pipeline guesses for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from torch import Tensor

from photomask.errors import OperatorError

Constants = Mapping[str, Tensor]
"""Constant tensors by role."""


class OutputScale(Enum):
    """What gives the codes of an operation's output their scale."""

    OWN = auto()
    """A quantizer of its own."""
    KEPT = auto()
    """The first input: values are moved or selected, and their codes with them."""
    ROUNDED = auto()
    """The first input; but some values may be none of its codes, and are rounded to them."""
    NONE = auto()
    """Nothing: the output is integers already."""


class Accumulates(Enum):
    """What an operation adds up before its result is rescaled; `photomask.chip.units` has units."""

    NOTHING = auto()
    """The codes of the result are moved, looked up or given: there is no rescaling."""
    CODES = auto()
    """Codes of an input."""
    WEIGHTED = auto()
    """Products of an input's codes and the codes of the constant `weight`."""
    PRODUCTS = auto()
    """Products of the codes of two inputs."""
    ALIGNED = auto()
    """Codes of inputs, each times an integer that brings it to a scale that all share."""
    SHARES = auto()
    """Shares of a whole, which is a power of two."""
    NORMALS = auto()
    """Numbers of variance 1, times the codes of the constant `gain`."""


class IntegerUse(Enum):
    """What an operation does with an input that is integers and has no scale."""

    MOVES = auto()
    """The integers come out as they are."""
    ROWS = auto()
    """They are the rows of a table that are taken."""
    MASK = auto()
    """Where they are 0, something takes no part."""


@dataclass(frozen=True)
class Operation:
    """A function of edges and constant tensors.

    A class states all facts below, or inherits them from one that does. One that others derive
    from, and that is no operation itself, is declared with `abstract=True`.
    """

    output_scale: ClassVar[OutputScale]
    """What gives its output a scale."""
    accumulates: ClassVar[Accumulates]
    """What is added up before the result is rescaled."""
    takes_clamp: ClassVar[bool]
    """True: a following ReLU or clamp becomes the bounds of its requantization."""
    multiplies: ClassVar[bool]
    """True: its products need the hardware's multipliers, whose width its operands decide."""
    moves: ClassVar[bool]
    """True: every element of the result is the element of an input that its position tells."""
    channel_axis: ClassVar[int | None]
    """The axis of the result, 1 or -1, along which the rescaling may differ; None if none may."""
    factor_role: ClassVar[str]
    """The constant whose rows are channels, into which their factors fold; empty if none."""
    integer_inputs: ClassVar[tuple[IntegerUse | None, ...]]
    """By position: what it does with an integer input; others it cannot read."""
    sums: ClassVar[bool]
    """True: it adds up along axes of its inputs; `summed_axes` says which."""

    def __init_subclass__(cls, abstract: bool = False) -> None:
        """Refuses a class that leaves out a fact.

        Args:
            abstract: the class is only derived from.

        Raises:
            OperatorError: names the facts that are missing.
        """
        super().__init_subclass__()
        missing = [name for name in FACTS if not abstract and not hasattr(cls, name)]
        if not (abstract or missing) and cls.sums and cls.summed_axes is Operation.summed_axes:
            missing.append("summed_axes")
        if missing:
            raise OperatorError(
                f"the float operation {cls.__name__} does not state {', '.join(missing)}: every "
                "operation states what photomask.chip.graph.operations.Operation lists"
            )

    @property
    def kind(self) -> str:
        """The word that recipes use: `convolution`, `max_pool`, …."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    @property
    def keeps_scale(self) -> bool:
        """Tells whether the output has its first input's scale."""
        return self.output_scale in (OutputScale.KEPT, OutputScale.ROUNDED)

    @property
    def decides_scale(self) -> bool:
        """Tells whether a quantizer of its own gives the output its scale."""
        return self.output_scale is OutputScale.OWN

    @property
    def is_quantized(self) -> bool:
        """Tells whether the output is rounded to codes, and not just moved or selected."""
        return self.output_scale in (OutputScale.OWN, OutputScale.ROUNDED)

    @property
    def makes_values(self) -> bool:
        """Tells whether an output of its input's scale holds values that the input may not reach.

        The lowest possible padding, below every maximum, is none: any code that is low enough will
        do.
        """
        return False

    @property
    def divides(self) -> bool:
        """Tells whether the rescaling also divides by a count, which takes a multiplication."""
        return False

    @property
    def product_factor(self) -> float:
        """A number that multiplies all products of two inputs, which the rescaling takes in."""
        return 1.0

    def channels_in(self, axes: int) -> int:
        """Returns where the channels of a result with so many axes are, not negative.

        Raises:
            OperatorError: the operation has no channels that are rescaled apart.
        """
        if self.channel_axis is None:
            raise OperatorError(f"{self.kind} has no axis whose channels are rescaled apart")
        return self.channel_axis % axes

    def use_of_integers(self, position: int) -> IntegerUse | None:
        """Returns what becomes of an input that is integers; None if it must not be such."""
        return self.integer_inputs[position] if position < len(self.integer_inputs) else None

    def summed_axes(self, position: int, shape: tuple[int, ...]) -> frozenset[int]:
        """Returns the axes of an input that the operation adds up along, not negative.

        Args:
            position: of the input.
            shape: of that input.
        """
        return frozenset()

    def axis_behind(self, axis: int) -> int | None:
        """Returns which axis of the result holds an axis of the input; None if none does alone.

        Only operations whose output has its input's values are asked.
        """
        return axis

    def compute(self, inputs: Sequence[Tensor], constants: Constants) -> Tensor:
        """Returns the float result."""
        raise NotImplementedError


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
"""What a class must state besides its methods."""

"""What is asked of every operator beside its integers: words for facts, stated in its own file."""

from enum import Enum


class Family(Enum):
    """Which elements of its inputs a result is made of, and what becomes of the axes."""

    MAP = "map"
    """Windows of a feature map `[N, channels, *spatial]`; so is the result."""
    ROW = "row"
    """Writes rows: the last axis of the result holds channels, whatever the input's axes mean."""
    REDUCTION = "reduction"
    """Elements along whole axes together; the other axes stay what they are."""
    ELEMENTWISE = "elementwise"
    """One element of each input, at one place; inputs broadcast."""
    MOVE = "move"
    """Moves elements and changes none; each axis stays what it is."""
    REARRANGEMENT = "rearrangement"
    """Moves elements to other axes and changes none."""
    CONSTANT = "constant"
    """Reads nothing."""

    @property
    def keeps_axes(self) -> bool:
        """Whether each axis of the result, counted from the last, means what the inputs' does."""
        return self not in (Family.ROW, Family.REARRANGEMENT)


class Scaling(Enum):
    """How the scales of the inputs become that of the result."""

    KEPT = "kept"
    """A code means what it means in the inputs, which have one scale and one zero point."""
    SUMMED = "summed"
    """A sum of elements: the input's scale, zero point 0."""
    MULTIPLIED = "multiplied"
    """A sum of products: the product of both factors' scales, zero point 0. A number by which the
    model multiplies the result, as attention does, may be part of it."""
    CHANGED = "changed"
    """Integers of the operator, made from scales alone, lead from the inputs' to the result's."""
    OWN = "own"
    """A scale of its own, whatever the inputs' is: of a table, of constants, of a norm."""

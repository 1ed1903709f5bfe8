"""The words for the facts that every operator states in its own file."""

from enum import Enum


class Family(Enum):
    """Which input elements a result depends on, and what becomes of the axes."""

    MAP = "map"
    """A result reads a window of a feature map `[N, channels, *spatial]` and belongs to one."""
    ROW = "row"
    """The result consists of rows: its last axis holds channels, whatever the input's axes mean."""
    REDUCTION = "reduction"
    """A result depends on all elements along whole axes; the other axes keep their meaning."""
    ELEMENTWISE = "elementwise"
    """A result depends on one element of each input, at the same place; inputs broadcast."""
    MOVE = "move"
    """The operator moves elements without a change, and each axis keeps its meaning."""
    REARRANGEMENT = "rearrangement"
    """The operator moves elements to other axes without a change."""
    CONSTANT = "constant"
    """The operator has no inputs."""

    @property
    def keeps_axes(self) -> bool:
        """Whether each axis of the result, counted from the last, means what the input's means."""
        return self not in (Family.ROW, Family.REARRANGEMENT)


class Scaling(Enum):
    """How the scale of the result follows from the scales of the inputs."""

    KEPT = "kept"
    """The result has the scale and the zero point of the inputs, which share them."""
    SUMMED = "summed"
    """The result is a sum of elements: it has the scale of the input and the zero point 0."""
    MULTIPLIED = "multiplied"
    """The result is a sum of products: its scale is the product of the factors' scales.

    Its zero point is 0. The scale may include a number by which the model multiplies the result, as
    attention does.
    """
    CHANGED = "changed"
    """Integers of the operator convert from the inputs' scales to the result's scale.

    These integers depend only on the scales.
    """
    OWN = "own"
    """The result has a scale of its own, from a table, a constant or a norm, whatever the inputs'
    scales.
    """

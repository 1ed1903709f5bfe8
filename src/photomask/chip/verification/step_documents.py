"""What a report says of the program itself: steps, edges, constants and memory."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.memory_map import Place
from photomask.documents import Document

MOST_VALUES = 64
"""Numbers that a report lists one by one; of more it gives the ends, and the program has all."""


class Numbers(Document):
    """The numbers of one tensor, such as the multipliers of all channels."""

    count: int
    low: int | float
    high: int | float
    values: tuple[int | float, ...]
    """All of them, in order, where there are at most 64; otherwise empty."""

    @classmethod
    def of(cls, values: np.ndarray | Sequence[float]) -> Self:
        """Returns the ends of some numbers and, where they are few, the numbers."""
        flat = np.asarray(values).reshape(-1)
        return cls(
            count=flat.size,
            low=flat.min().item(),
            high=flat.max().item(),
            values=tuple(flat.tolist()) if flat.size <= MOST_VALUES else (),
        )


class EdgeFacts(Document):
    """An edge: its format, what its integers mean, and where it lies."""

    name: str
    role: Literal["input", "accumulator", "activation"]
    shape: tuple[int, ...]
    """Of one sample, the batch axis included."""
    format: IntFormat
    scale: Numbers
    """Real value of one unit: one number, or one for each channel."""
    zero_point: int
    low: int
    """The smallest integer that is proven to occur."""
    high: int
    """The largest integer that is proven to occur."""
    bytes: int
    """Of the memory words of one sample."""
    arena_offset: int | None
    """Bytes from the start of the arena of the C form; None for inputs and outputs, which lie in
    the caller's memory, for constants, and for sums that are rescaled at once."""
    place: Place | None
    """Where the RTL form stores the edge; None without an accelerator that the reference design can
    be built as."""

    @property
    def proven_bits(self) -> int:
        """Bits of the narrowest signed integer that holds every value."""
        return max(self.high, -self.low - 1, 0).bit_length() + 1


class TensorFacts(Document):
    """A constant tensor of a step."""

    role: str
    """What it is to the operator: weight, bias, multiplier, shift, table, index and so on."""
    format: IntFormat
    shape: tuple[int, ...]
    numbers: Numbers
    bytes: int
    """Of the memory words that hold it."""


class StepReport(Document):
    """One step of the program."""

    name: str
    operator: str
    node: str
    """The node of the float model that it computes, or helps to compute."""
    source: str
    inputs: tuple[str, ...]
    """Edges."""
    output: EdgeFacts
    tensors: tuple[TensorFacts, ...]
    attributes: dict[str, Any]
    """Numbers of the operator that are no tensors, such as strides, coefficients and offsets."""
    relative_error: float
    """Largest relative error of its multipliers."""
    sqnr_db: float | None
    """Of its output against the float model; None where no node of the model has this edge."""
    multiply_accumulates: int
    cycles: int | None
    """On the accelerator; None without one, and for a step that is fused into another."""
    fused_into: str | None
    """The step that this one is done with on the accelerator, at no cost of its own."""
    live_activation_bytes: int
    """Of all inputs and activations that are alive while it runs."""
    live_accumulator_bytes: int

    def tensor(self, role: str) -> TensorFacts | None:
        """Returns the constant tensor of a role, if the step has one."""
        return next((tensor for tensor in self.tensors if tensor.role == role), None)


class MemoryReport(Document):
    """What memory the program needs for the edges of one sample."""

    peak_activation_bytes: int
    """The largest sum of the bytes of all inputs and activations that are alive at once."""
    peak_activation_step: str
    """The first step at which that is so."""
    peak_accumulator_bytes: int
    """The same of all accumulators. A machine that rescales each sum as it leaves the array stores
    none of those with a single reader."""
    peak_accumulator_step: str
    arena_bytes: int | None
    """The static memory of the C form; None where C has no form of the program."""
    activation_words: int | None
    """Words of the reference design's memory of activations that are used; None without an
    accelerator that the design can be built as."""
    accumulator_words: int | None
    word_lanes: int | None
    """Integers in one of these words."""

"""The descriptors: the instructions of the reference design, each a walk over the words of a map.

The fields and their order are those of `descriptor_t` in `rtl/descriptor_package.sv`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

from photomask.chip.target import Rounding
from photomask.errors import FormError


class Operation(IntEnum):
    """What the design does with the words that a descriptor walks over."""

    STOP = 0
    MATRIX = 1
    VECTOR = 2
    TILE = 3
    SOFTMAX = 4
    NORMALIZE = 5


class Combine(IntEnum):
    """How the vector unit reduces the taps of a window to one number."""

    ADD = 0
    MAXIMUM = 1
    MULTIPLY = 2


ROUNDINGS = tuple(Rounding)
"""The rounding modes; the number of a mode is its position here."""
TABLE_FILE = "descriptors.hex"
UNBOUNDED = (1 << 31) - 1
"""The width of an input that is treated as one long row."""
FIELDS: tuple[tuple[str, int], ...] = (
    ("operation", 4),
    ("combine", 4),
    ("rounding", 4),
    ("reciprocal_bits", 6),
    ("fraction_bits", 6),
    ("keep_weights", 1),
    ("centred", 1),
    ("last_of_step", 1),
    ("input_in_accumulators", 1),
    ("output_in_accumulators", 1),
    ("input_signed", 1),
    ("start_from_memory", 1),
    ("lookup", 1),
    ("first_lane", 8),
    ("last_lane", 8),
    ("dense", 1),
    ("rotation", 15),
    ("step", 32),
    ("input_address", 32),
    ("input_height", 32),
    ("input_width", 32),
    ("output_height", 32),
    ("output_width", 32),
    ("origin_row", 32),
    ("origin_column", 32),
    ("stride_row", 32),
    ("stride_column", 32),
    ("kernel_height", 32),
    ("kernel_width", 32),
    ("dilation_row", 32),
    ("dilation_column", 32),
    ("padding_value", 64),
    ("output_address", 32),
    ("output_step", 32),
    ("weight_address", 32),
    ("parameter_address", 32),
    ("offset", 64),
    ("coefficient", 64),
    ("start", 64),
    ("zero_point", 64),
    ("low", 64),
    ("high", 64),
)
"""The name and width in bits of each field, the most significant first.

Fields of 32 and 64 bits are signed.
"""
DESCRIPTOR_BITS = sum(bits for _, bits in FIELDS)


@dataclass(frozen=True)
class Descriptor:
    """One instruction; a field with its default value has no effect.

    `descriptor_package.sv` explains the fields.
    """

    operation: Operation
    combine: Combine = Combine.ADD
    rounding: int = 0
    reciprocal_bits: int = 0
    fraction_bits: int = 0
    keep_weights: int = 0
    centred: int = 0
    last_of_step: int = 0
    input_in_accumulators: int = 0
    output_in_accumulators: int = 0
    input_signed: int = 0
    start_from_memory: int = 0
    lookup: int = 0
    first_lane: int = 0
    last_lane: int = 0
    dense: int = 0
    rotation: int = 0
    step: int = 0
    input_address: int = 0
    input_height: int = 1
    input_width: int = UNBOUNDED
    output_height: int = 1
    output_width: int = 1
    origin_row: int = 0
    origin_column: int = 0
    stride_row: int = 1
    stride_column: int = 1
    kernel_height: int = 1
    kernel_width: int = 1
    dilation_row: int = 1
    dilation_column: int = 1
    padding_value: int = 0
    output_address: int = 0
    output_step: int = 1
    weight_address: int = 0
    parameter_address: int = 0
    offset: int = 0
    coefficient: int = 1
    start: int = 0
    zero_point: int = 0
    low: int = 0
    high: int = 0

    def __post_init__(self) -> None:
        """Raises an error for numbers that do not fit into their fields.

        Raises:
            FormError: names the field.
        """
        for name, bits in FIELDS:
            value = getattr(self, name)
            low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if bits >= 32 else (0, 1 << bits)
            if not low <= value < high:
                raise FormError(
                    f"the step needs a descriptor whose {name} is {value}, but this field has only "
                    f"{bits} bits"
                )

    @property
    def outputs(self) -> int:
        """The number of words that are written."""
        return self.output_height * self.output_width

    @property
    def taps(self) -> int:
        """The number of words that are read."""
        return self.outputs * self.kernel_height * self.kernel_width

    def encode(self) -> int:
        """Returns the descriptor as one word of `DESCRIPTOR_BITS`."""
        word = 0
        for name, bits in FIELDS:
            word = word << bits | getattr(self, name) & ((1 << bits) - 1)
        return word

    @classmethod
    def decode(cls, word: int) -> "Descriptor":
        """Returns the descriptor that `encode` turned into this word."""
        values = {}
        for name, bits in reversed(FIELDS):
            value = word & ((1 << bits) - 1)
            negative = bits >= 32 and value >> (bits - 1)
            values[name] = value - (1 << bits) if negative else value
            word >>= bits
        kinds = {
            "operation": Operation(values["operation"]),
            "combine": Combine(values["combine"]),
        }
        return cls(**values | kinds)


def rows_and_columns(sizes: tuple[int, ...], rows: int = 1) -> tuple[int, int]:
    """Returns the two numbers of a descriptor for an operator's numbers per spatial axis.

    Args:
        sizes: one number for each axis behind the channels.
        rows: the number for the first axis if the operator has only one axis.

    Raises:
        FormError: the operator has more than two axes.
    """
    if len(sizes) > 2:
        raise FormError(
            f"the input has {len(sizes)} axes behind the channels, but the design can walk over at "
            "most two"
        )
    return (rows, math.prod(sizes)) if len(sizes) < 2 else (sizes[0], sizes[1])


STOP = Descriptor(Operation.STOP)
"""The descriptor at the end of every table."""


def render_table(descriptors: Sequence[Descriptor]) -> str:
    """Returns the text of `TABLE_FILE`, including the final `STOP`."""
    digits = DESCRIPTOR_BITS // 4
    comment = "".join(f"{name}:{bits} " for name, bits in FIELDS).strip()
    lines = [f"{descriptor.encode():0{digits}x}" for descriptor in (*descriptors, STOP)]
    return "\n".join([f"// {comment}", *lines]) + "\n"


if [field.name for field in fields(Descriptor)] != [name for name, _ in FIELDS]:
    raise AssertionError("Descriptor and FIELDS differ")

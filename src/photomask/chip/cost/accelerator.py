"""The accelerator: how large and how fast a machine is, as a strict, versioned document.

A `Target` says how the machine's numbers behave: rounding, widths, zero points, memory words. It
decides which integers come out, so it is part of the program. An `Accelerator` says how many
multipliers and bytes there are and what they cost. It decides when the same integers come out. One
program can therefore be estimated for many accelerators, and changing one never changes a result.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from photomask.documents import Document, file_of_name, read_text
from photomask.errors import TargetError
from photomask.report import Shown, Table, table_of_fields

Dataflow = Literal["weight_stationary", "output_stationary", "input_stationary"]
"""What stays in the array's cells while the other operands stream past."""
Picojoules = Annotated[float, Field(ge=0.0)]
Extent = Annotated[int, Field(ge=1, le=4096)]
Bits = Annotated[int, Field(ge=1, le=64)]
Bytes = Annotated[int, Field(ge=1, le=1 << 40)]


class EnergyTable(Document):
    """Picojoules of what the model counts.

    The defaults are those of a 45 nm process at 0.9 V: integer addition 0.03 pJ at 8 and 0.1 pJ at
    32 bits; integer multiplication 0.2 pJ at 8 and 3.1 pJ at 32 bits; 64 bits from a memory of 8 KB
    10 pJ, of 32 KB 20 pJ, of 1 MB 100 pJ; 64 bits from DRAM 1,300 to 2,600 pJ.

    Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
    """

    multiply_8x8_pj: Picojoules = 0.2
    """One product of two 8-bit integers."""
    add_32_pj: Picojoules = 0.1
    """One addition of 32-bit integers."""
    requantize_pj: Picojoules = 1.8
    """One accumulator rescaled: a 32 × 16-bit product (0.2 * 32 * 16 / 64 = 1.6) and two additions
    (rounding and zero point)."""
    lookup_pj: Picojoules = 1.25
    """One read of a table: a byte of an 8 KB memory, 10 pJ / 8, the smallest that is listed."""
    buffer_byte_pj: Picojoules = 2.5
    """One byte read from or written to a buffer: 32 KB, 20 pJ / 8."""
    external_byte_pj: Picojoules = 162.5
    """One byte to or from external memory: the lower end, 1,300 pJ / 8."""

    def multiply_accumulate_pj(
        self, weight_bits: int, activation_bits: int, accumulator_bits: int
    ) -> float:
        """Returns the energy of one multiply-accumulate of these widths.

        `multiply_8x8_pj * weight_bits * activation_bits / 64 + add_32_pj * accumulator_bits / 32`

        A multiplier has one adder cell for each pair of bits, an adder one for each bit. The source
        agrees: the product of 32-bit integers comes to 3.2 pJ and is listed with 3.1, the addition
        of 8-bit ones comes to 0.025 pJ and is listed with 0.03.
        """
        product = self.multiply_8x8_pj * weight_bits * activation_bits / 64
        return product + self.add_32_pj * accumulator_bits / 32


class Accelerator(Shown, Document):
    """A systolic array with three buffers beside it and an external memory.

    Each buffer is halved: one half feeds the array while the other is filled or emptied.
    """

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    rows: Extent
    columns: Extent
    """Cells of the array; each does one multiply-accumulate a cycle. There are as many lanes
    beside the array, for rescaling and for steps without weights, as it has columns."""
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    accumulator_bits: Bits = 32
    """The widest operands and sums of a cell."""
    dataflow: Dataflow
    weight_buffer_bytes: Bytes
    activation_buffer_bytes: Bytes
    accumulator_buffer_bytes: Bytes
    """Both halves together."""
    memory_bytes_per_cycle: Annotated[float, Field(gt=0.0)]
    """What external memory delivers or takes in a cycle of the array."""
    clock_mhz: Annotated[float, Field(gt=0.0)]
    energy: EnergyTable = EnergyTable()

    @property
    def cells(self) -> int:
        """Multiply-accumulates that the array can do in a cycle."""
        return self.rows * self.columns

    def shown(self) -> Table:
        """Returns a row for each field."""
        return table_of_fields(f"accelerator {self.name!r}", self)


KIB = 1024
_PRESETS = (
    (
        "The reference design in RTL: 16 × 16 cells, weights stay in the array.",
        Accelerator(
            name="reference",
            rows=16,
            columns=16,
            dataflow="weight_stationary",
            weight_buffer_bytes=32 * KIB,
            activation_buffer_bytes=32 * KIB,
            accumulator_buffer_bytes=32 * KIB,
            memory_bytes_per_cycle=8.0,
            clock_mhz=200.0,
        ),
    ),
    # 128 KiB lie between the listed 32 KB and 1 MB: energy grows with the square root of the
    # size, which takes 20 pJ to 40 pJ for 64 bits.
    (
        "An edge accelerator: 32 × 32 cells, 128 KiB in each buffer, 400 MHz.",
        Accelerator(
            name="edge",
            rows=32,
            columns=32,
            dataflow="weight_stationary",
            weight_buffer_bytes=128 * KIB,
            activation_buffer_bytes=128 * KIB,
            accumulator_buffer_bytes=128 * KIB,
            memory_bytes_per_cycle=16.0,
            clock_mhz=400.0,
            energy=EnergyTable(buffer_byte_pj=5.0),
        ),
    ),
    (
        "The reference with another dataflow: sums stay in the array.",
        Accelerator(
            name="output_stationary",
            rows=16,
            columns=16,
            dataflow="output_stationary",
            weight_buffer_bytes=32 * KIB,
            activation_buffer_bytes=32 * KIB,
            accumulator_buffer_bytes=32 * KIB,
            memory_bytes_per_cycle=8.0,
            clock_mhz=200.0,
        ),
    ),
)
"""What each accelerator is for, and the accelerator."""

PRESETS: dict[str, Accelerator] = {accelerator.name: accelerator for _, accelerator in _PRESETS}
"""Machines to start from."""

PURPOSES: dict[str, str] = {accelerator.name: purpose for purpose, accelerator in _PRESETS}
"""What each accelerator is for, in a sentence, by its name."""


def load_accelerator(name_or_path: str | Path | Accelerator) -> Accelerator:
    """Returns a preset by name, or reads an accelerator from a JSON file.

    Args:
        name_or_path: a preset's name, or a file; an accelerator is returned as it is.

    Raises:
        TargetError: no preset and no file of that name.
        DocumentError: the file is not a valid accelerator.
    """
    if isinstance(name_or_path, Accelerator):
        return name_or_path
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = file_of_name(name_or_path, "accelerator", PRESETS, TargetError)
    return Accelerator.parse(read_text(path), str(path))

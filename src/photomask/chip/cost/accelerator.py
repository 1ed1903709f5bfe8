"""The accelerator: how large and how fast a machine is, as a strict, versioned document.

A `Target` says how the machine's numbers behave: rounding, widths, zero points, memory words. It
determines the resulting integers, so it is part of the program. An `Accelerator` says how many
multipliers and bytes the machine has, and what they cost. It only determines when these integers
are ready. One program can therefore be estimated for many accelerators, and a change of the
accelerator never changes a result.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from photomask.chip.sparsity import NofM
from photomask.documents import Document, file_of_name, read_text
from photomask.errors import TargetError
from photomask.report import Shown, Table, table_of_fields

Dataflow = Literal["weight_stationary", "output_stationary", "input_stationary"]
"""The operand that stays in the array's cells while the other operands stream past."""
Picojoules = Annotated[float, Field(ge=0.0)]
Extent = Annotated[int, Field(ge=1, le=4096)]
Bits = Annotated[int, Field(ge=1, le=64)]
Bytes = Annotated[int, Field(ge=1, le=1 << 40)]


class EnergyTable(Document):
    """The energy in picojoules of everything that the model counts.

    The defaults belong to a 45 nm process at 0.9 V. An integer addition takes 0.03 pJ at 8 bits and
    0.1 pJ at 32 bits. An integer multiplication takes 0.2 pJ at 8 bits and 3.1 pJ at 32 bits. A
    read of 64 bits takes 10 pJ from a memory of 8 KB, 20 pJ from 32 KB, and 100 pJ from 1 MB. A
    read of 64 bits from DRAM takes 1,300 to 2,600 pJ.

    Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
    """

    multiply_8x8_pj: Picojoules = 0.2
    """The energy of a product of two 8-bit integers."""
    add_32_pj: Picojoules = 0.1
    """The energy of an addition of 32-bit integers."""
    requantize_pj: Picojoules = 1.8
    """The energy of one rescaled accumulator.

    It is a 32 × 16-bit product (0.2 * 32 * 16 / 64 = 1.6) and two additions, for the rounding and
    the zero point.
    """
    lookup_pj: Picojoules = 1.25
    """The energy of one read of a table.

    It is a byte from an 8 KB memory, 10 pJ / 8, which is the smallest memory that the source lists.
    """
    buffer_byte_pj: Picojoules = 2.5
    """The energy of one byte that is read from or written to a buffer of 32 KB, 20 pJ / 8."""
    external_byte_pj: Picojoules = 162.5
    """The energy of one byte to or from external memory: the source's lower end, 1,300 pJ / 8."""

    def multiply_accumulate_pj(
        self, weight_bits: int, activation_bits: int, accumulator_bits: int
    ) -> float:
        """Returns the energy of one multiply-accumulate of these widths.

        `multiply_8x8_pj * weight_bits * activation_bits / 64 + add_32_pj * accumulator_bits / 32`

        A multiplier has one adder cell for each pair of bits, and an adder has one for each bit.
        The source confirms this. A product of 32-bit integers comes to 3.2 pJ by this formula and
        is listed with 3.1. An addition of 8-bit integers comes to 0.025 pJ and is listed with 0.03.
        """
        product = self.multiply_8x8_pj * weight_bits * activation_bits / 64
        return product + self.add_32_pj * accumulator_bits / 32


class Accelerator(Shown, Document):
    """A systolic array with three buffers beside it and an external memory.

    Each buffer is split into two halves: one half feeds the array while the other is filled or
    emptied.

    If the array is sparse, a column of it holds N weights of each M inputs, and the positions of
    these weights among the M inputs. N rows together read the M inputs, so R rows cover R * M / N
    inputs of a layer whose weights keep the pattern. Other layers run dense on the same array.
    Source: Mishra et al. 2021, arXiv:2104.08378, for 2:4; Liu et al. 2020, arXiv:2005.08098, for
    rows that share their inputs.
    """

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    rows: Extent
    columns: Extent
    """The columns of the array; each cell does one multiply-accumulate per cycle.

    Beside the array there are as many lanes as it has columns. They rescale results and run the
    steps without weights.
    """
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    accumulator_bits: Bits = 32
    """The widest sums of a cell; the fields before it are the widest operands."""
    dataflow: Dataflow
    weight_buffer_bytes: Bytes
    activation_buffer_bytes: Bytes
    accumulator_buffer_bytes: Bytes
    """The size of both halves together, as for the other two buffers."""
    memory_bytes_per_cycle: Annotated[float, Field(gt=0.0)]
    """The bytes that external memory delivers or takes in one cycle of the array."""
    clock_mhz: Annotated[float, Field(gt=0.0)]
    energy: EnergyTable = EnergyTable()
    sparse: NofM | None = None
    """The pattern of the weights that the array takes compressed; None for a dense array."""

    @model_validator(mode="after")
    def _has_rows_for_its_pattern(self) -> Self:
        if (problem := self.pattern_problem) is not None:
            raise ValueError(problem)
        return self

    @model_serializer(mode="wrap")
    def _without_absent_pattern(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the pattern of a dense array out, so that older documents keep their hashes."""
        body = dump(self)
        if self.sparse is None:
            body.pop("sparse", None)
        return body

    @property
    def pattern_problem(self) -> str | None:
        """Says why the array cannot have its N:M pattern, or None if it can."""
        if self.sparse is None:
            return None
        if self.sparse.kept == self.sparse.group:
            return f"an array that keeps {self.sparse} inputs is dense; leave its pattern out"
        if self.rows % self.sparse.kept:
            return (
                f"{self.rows} rows cannot hold the pattern {self.sparse}: the rows must be a "
                f"multiple of N, which is {self.sparse.kept}"
            )
        if self.dataflow != "weight_stationary":
            return (
                f"the dataflow is {self.dataflow}, but only an array that is weight_stationary can "
                f"hold the positions of the pattern {self.sparse}"
            )
        return None

    @property
    def kept(self) -> int:
        """The number of rows that read one group of inputs together: N, and 1 if dense."""
        return 1 if self.sparse is None else self.sparse.kept

    @property
    def group(self) -> int:
        """The number of inputs of such a group: M, and 1 if dense."""
        return 1 if self.sparse is None else self.sparse.group

    @property
    def row_groups(self) -> int:
        """The number of groups that the rows form; for a dense array, the number of its rows."""
        return self.rows // self.kept

    @property
    def sparse_inputs(self) -> int:
        """The inputs that one pass covers if the weights keep the pattern."""
        return self.row_groups * self.group

    @property
    def cells(self) -> int:
        """The number of multiply-accumulates that the array can do per cycle."""
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
    # 128 KiB lie between the listed 32 KB and 1 MB. The energy grows with the square root of the
    # size, so 20 pJ for 64 bits become 40 pJ.
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
"""The accelerators by the name that `load_accelerator` takes."""

PURPOSES: dict[str, str] = {accelerator.name: purpose for purpose, accelerator in _PRESETS}
"""What each accelerator is for, in a sentence, by its name."""


def load_accelerator(name_or_path: str | Path | Accelerator) -> Accelerator:
    """Returns a preset by its name, or reads an accelerator from a JSON file.

    Args:
        name_or_path: the name of a preset, the path of a file, or an accelerator, which is returned
            unchanged.

    Raises:
        TargetError: there is neither a preset nor a file of that name, or the accelerator's N:M
            pattern does not fit its rows or its dataflow.
        DocumentError: the file is not a valid accelerator.
    """
    if isinstance(name_or_path, Accelerator):
        # A copy with changed fields was not validated.
        if (problem := name_or_path.pattern_problem) is not None:
            raise TargetError(f"accelerator {name_or_path.name!r}: {problem}")
        return name_or_path
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = file_of_name(name_or_path, "accelerator", PRESETS, TargetError)
    return Accelerator.parse(read_text(path), str(path))

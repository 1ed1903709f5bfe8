"""The steps of a program as a table, and its memory as facts."""

from collections.abc import Sequence

from photomask.chip.verification.step_documents import (
    EdgeFacts,
    MemoryReport,
    Numbers,
    StepReport,
    TensorFacts,
)
from photomask.chip.verification.words import (
    bare_db,
    count,
    numbers_text,
    place_text,
    shape_text,
    size,
    sqnr_bar,
    sqnr_tone,
)
from photomask.report import Cell, Column, Row, Section, Tone

STEPS_TITLE = "Steps of the program"
_COLUMNS = (
    Column("step", number=False),
    Column("operator", number=False),
    Column("shape", number=False, meaning="Of one sample of the result, without the batch."),
    Column("result", number=False, meaning="Bits and sign of the result's integers."),
    Column("SQNR dB", meaning="Signal over noise of the result, against the float model."),
    Column("cycles", meaning="On the accelerator; empty for a step done with the one before."),
    Column("alive", meaning="Bytes of all activations that are needed while the step runs."),
    Column("bytes", meaning="Of the result, in memory words of the target."),
    Column("constants", meaning="Bytes of weights, biases, multipliers, shifts and tables."),
    Column("lowest", meaning="The smallest integer that is proven to occur, for any input."),
    Column("highest", meaning="The largest integer that is proven to occur, for any input."),
    Column("acc. bits", meaning="Bits that an accumulator is proven to need."),
    Column("scale", meaning="Real value of one unit of the result; of several, the ends."),
    Column("zero point", meaning="The integer that stands for the real number 0."),
    Column("weights", number=False, meaning="Bits and sign of the integer weights."),
    Column("multiplier", meaning="Of a rescaling; of one for each channel, the ends."),
    Column("shift", meaning="Right shift of a rescaling in bits; of several, the ends."),
    Column("RTL memory", number=False, meaning="In which memory of the RTL form the result lies."),
    Column("RTL address", meaning="The first word of the result there, as in design.json."),
    Column("RTL words", meaning="How many words the result takes there."),
    Column("C offset", meaning="Of the result in the arena of the C form, in bytes."),
    Column("reads", number=False, meaning="The edges that the step reads."),
)


def step_section(steps: Sequence[StepReport]) -> Section:
    """Returns a row for each step; columns in which no step has anything are left out."""
    most_cycles = max((step.cycles or 0 for step in steps), default=0) or 1
    most_bytes = max((step.live_activation_bytes for step in steps), default=0) or 1
    rows = [_row(step, most_cycles, most_bytes) for step in steps]
    filled = [place for place in range(len(_COLUMNS)) if any(_text(row[place]) for row in rows)]
    return Section(
        STEPS_TITLE,
        "Every step in the order of computation, with what the exported files say of it.",
        [_COLUMNS[place] for place in filled],
        [[row[place] for place in filled] for row in rows],
        in_terminal=False,
        caption="Integer operators, their formats, constants, addresses and costs, for one sample.",
    )


def _text(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else cell.text


def _row(step: StepReport, most_cycles: int, most_bytes: int) -> Row:
    output, weight = step.output, step.tensor("weight")
    constants = sum(tensor.bytes for tensor in step.tensors)
    is_sum = output.role == "accumulator"
    live = step.live_activation_bytes
    return (
        Cell(step.name, hint=f"{step.node}, {step.source}"),
        Cell(step.operator, Tone.QUIET, hint=_attributes(step)),
        Cell(shape_text(output.shape), Tone.QUIET),
        str(output.format),
        _sqnr(step.sqnr_db),
        _cycles(step, most_cycles),
        Cell(size(live), bar=live / most_bytes, sort=live),
        _bytes(output.bytes),
        _bytes(constants) if constants else "",
        str(output.low),
        str(output.high),
        str(output.proven_bits) if is_sum else "",
        _numbers(output.scale),
        str(output.zero_point),
        "" if weight is None else str(weight.format),
        _tensor(step.tensor("multiplier")),
        _tensor(step.tensor("shift")),
        *_places(output),
        Cell(", ".join(step.inputs), Tone.QUIET),
    )


def _attributes(step: StepReport) -> str:
    """Returns the numbers of an operator that are no tensors, for whoever points at it."""
    return ", ".join(f"{name} {value}" for name, value in step.attributes.items())


def _numbers(numbers: Numbers) -> Cell:
    many = "" if numbers.count == 1 else f"{numbers.count} numbers"
    if numbers.count > 1 and numbers.values:
        many = ", ".join(map(str, numbers.values))
    return Cell(numbers_text(numbers), hint=many, sort=float(numbers.low))


def _tensor(tensor: TensorFacts | None) -> Cell:
    return Cell("") if tensor is None else _numbers(tensor.numbers)


def _places(output: EdgeFacts) -> tuple[Cell | str, ...]:
    """Returns memory, address and words of the RTL form, and the offset of the C form."""
    place, offset = output.place, output.arena_offset
    found = "" if offset is None else str(offset)
    if place is None:
        return ("", "", "", found)
    address = Cell(f"0x{place.address:x}", hint=place_text(place), sort=place.address)
    return (Cell(place.memory, Tone.QUIET), address, str(place.words), found)


def _bytes(value: int) -> Cell:
    return Cell(size(value), sort=value)


def _sqnr(value: float | None) -> Cell:
    if value is None:
        return Cell("")
    return Cell(bare_db(value), sqnr_tone(value), bar=sqnr_bar(value), sort=value)


def _cycles(step: StepReport, most: int) -> Cell:
    if step.fused_into is not None:
        return Cell("", hint=f"done with {step.fused_into}")
    if not step.cycles:
        return Cell("" if step.cycles is None else "0")
    return Cell(count(step.cycles), bar=step.cycles / most, sort=step.cycles)


def memory_section(memory: MemoryReport) -> Section:
    """Returns what memory the edges of one sample need."""
    facts = [
        (
            "activations at once",
            f"{memory.peak_activation_bytes:,} bytes, at step {memory.peak_activation_step}",
        ),
        (
            "accumulators at once",
            f"{memory.peak_accumulator_bytes:,} bytes, at step {memory.peak_accumulator_step}; "
            "none where each sum is rescaled as it leaves the array",
        ),
    ]
    if memory.arena_bytes is not None:
        facts.append(("arena of the C form", f"{memory.arena_bytes:,} bytes"))
    if memory.activation_words is not None:
        facts.append(
            (
                "memories of the RTL form",
                f"{memory.activation_words:,} words of activations and "
                f"{memory.accumulator_words:,} of accumulators, {memory.word_lanes} integers each",
            )
        )
    text = (
        "Peak on-chip memory of one sample. An edge is alive from the step that computes it to the "
        "last one that reads it; weights and other constants are not counted."
    )
    return Section("Memory", text, facts=facts, in_terminal=False)

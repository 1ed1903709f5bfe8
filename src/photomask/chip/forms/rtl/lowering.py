"""Turns programs into descriptors of the reference design, with images and a memory map."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.formats import Interval
from photomask.chip.forms.rtl.context import RTL, Context
from photomask.chip.forms.rtl.descriptors import Descriptor
from photomask.chip.forms.rtl.images import ImageBuilder
from photomask.chip.forms.rtl.memory_map import MemoryMap, place_edges
from photomask.chip.forms.writers import Problem, each_step, require_none
from photomask.chip.program import IntegerProgram, Step
from photomask.documents import Document
from photomask.errors import FormError, TargetError
from photomask.report import Shown, Table

WIDEST_ACCUMULATOR = 48
MOST_LANES = 256
MOST_PATTERN_BITS = 16


class StepSupport(Document):
    """Whether a step runs on the reference design, and the reason if it does not."""

    step: str
    operator: str
    source: str
    """The file and line of the model's code."""
    descriptors: int
    """The number of descriptors; 0 for a constant, and for a step that does not run."""
    reason: str | None = None
    """The reason why the step does not run; None if it runs."""


class SupportReport(Shown, Document):
    """Which steps of a program run on the reference design."""

    steps: tuple[StepSupport, ...]

    @property
    def runs(self) -> bool:
        """Whether all steps run on the design."""
        return all(step.reason is None for step in self.steps)

    def shown(self) -> Table:
        """Returns a row for each step."""
        rows = [("step", "operator", "descriptors", "why it does not run")]
        rows += [(s.step, s.operator, str(s.descriptors), s.reason or "") for s in self.steps]
        return Table("", rows)


@dataclass(frozen=True)
class LoweredProgram:
    """A program in the form in which the reference design runs it.

    Attributes:
        program: the program.
        accelerator: the rows, columns and widths of the design.
        lanes: the number of channels in a word of its memories.
        memory: the places of every edge and every copy.
        descriptors: the descriptors of all steps in their order, without the final stop.
        images: the images of weights, parameters and tables.
    """

    program: IntegerProgram
    accelerator: Accelerator
    lanes: int
    memory: MemoryMap
    descriptors: tuple[Descriptor, ...]
    images: ImageBuilder = field(repr=False)


def support_report(program: IntegerProgram, accelerator: Accelerator | str | Path) -> SupportReport:
    """Returns for each step of a program whether it runs on the reference design.

    Raises:
        TargetError: the design cannot be built as this accelerator.
    """
    lowered, problems = lower_steps(program, accelerator)
    counts = Counter(descriptor.step for descriptor in lowered.descriptors)
    return SupportReport(
        steps=tuple(
            StepSupport(
                step=step.name,
                operator=step.operator.kind,
                source=step.source,
                descriptors=counts[number],
                reason=problems[number].reason if number in problems else None,
            )
            for number, step in enumerate(program.steps)
        )
    )


def lower(program: IntegerProgram, accelerator: Accelerator | str | Path) -> LoweredProgram:
    """Turns a program into descriptors, memory images and a memory map.

    Args:
        program: any program.
        accelerator: gives the rows, columns and widths of the design.

    Raises:
        FormError: names every step that does not run on the design, with the reason.
        TargetError: the design cannot be built as this accelerator.
    """
    lowered, problems = lower_steps(program, accelerator)
    require_none(
        problems.values(),
        f"the reference design as {lowered.accelerator.name!r}",
        "an accelerator with wider weights, activations or accumulators may run steps that are "
        "too wide for this one",
    )
    return lowered


def lower_steps(
    program: IntegerProgram, accelerator: Accelerator | str | Path
) -> tuple[LoweredProgram, dict[int, Problem]]:
    """Turns each step that runs on the reference design into descriptors.

    Returns:
        The program without the steps that do not run, and the problems of those steps, by the
        number of the step.

    Raises:
        TargetError: the design cannot be built as this accelerator.
    """
    machine = load_accelerator(accelerator)
    lanes, memory = word_lanes(machine), map_memory(program, machine)
    images = ImageBuilder(lanes, machine.kept)

    def write(step: Step) -> tuple[int, list[Descriptor]]:
        context = Context(program, machine, lanes, memory.edges, memory.copies, images, step)
        for name in (*step.inputs, step.output):
            _check_edge(context, name)
        number, written = program.links.positions[step.name], RTL.write(step.operator, context)
        numbered = [replace(one, step=number) for one in written]
        return number, numbered[:-1] + [replace(one, last_of_step=1) for one in numbered[-1:]]

    written, problems = each_step(program, write)
    by_number = dict(written)
    refused = [number for number in range(len(program.steps)) if number not in by_number]
    descriptors = tuple(itertools.chain.from_iterable(by_number.values()))
    lowered = LoweredProgram(program, machine, lanes, memory, descriptors, images)
    return lowered, dict(zip(refused, problems, strict=True))


def word_lanes(accelerator: Accelerator) -> int:
    """Returns how many integers a word of the design's memories holds."""
    return math.lcm(accelerator.rows, accelerator.columns, accelerator.sparse_inputs)


def map_memory(program: IntegerProgram, accelerator: Accelerator) -> MemoryMap:
    """Returns the places of all edges in the memories of the design for an accelerator.

    Raises:
        TargetError: the design cannot be built as this accelerator.
    """
    check_accelerator(accelerator)
    lanes = word_lanes(accelerator)
    return place_edges(program, lanes, accelerator.activation_bits, accelerator.accumulator_bits)


def _check_edge(context: Context, name: str) -> None:
    edge, bits = context.program.edges[name], context.accelerator.accumulator_bits
    if not edge.interval.within(Interval(context.lowest, context.highest)):
        raise FormError(
            f"the edge {name!r} holds {edge.low} to {edge.high}, but the accumulators have only "
            f"{bits} bits"
        )


def check_accelerator(accelerator: Accelerator) -> None:
    """Raises an error for an accelerator that the design cannot be built as.

    Raises:
        TargetError: says what does not fit the design.
    """
    lanes = word_lanes(accelerator)
    name = f"accelerator {accelerator.name!r}"
    if accelerator.dataflow != "weight_stationary":
        raise TargetError(
            f"{name} has the dataflow {accelerator.dataflow}, but the reference design is weight "
            "stationary; use the dataflow weight_stationary"
        )
    if lanes > MOST_LANES:
        sparse = "" if accelerator.sparse is None else f" and {accelerator.sparse_inputs} inputs"
        raise TargetError(
            f"{name} has {accelerator.rows} rows and {accelerator.columns} columns{sparse}, whose "
            f"least common multiple is {lanes}; the reference design can have at most {MOST_LANES} "
            "lanes"
        )
    if accelerator.sparse is not None and accelerator.sparse.index_bits > MOST_PATTERN_BITS:
        raise TargetError(
            f"{name} keeps {accelerator.sparse} inputs, which is "
            f"{accelerator.sparse.index_bits} bits for each pattern; the reference design "
            f"decodes at most {MOST_PATTERN_BITS}, which 8:16 needs 14 of; use smaller groups"
        )
    if not accelerator.activation_bits < accelerator.accumulator_bits <= WIDEST_ACCUMULATOR:
        raise TargetError(
            f"{name} has {accelerator.activation_bits}-bit activations and "
            f"{accelerator.accumulator_bits}-bit accumulators; the reference design needs "
            "accumulators that are wider than the activations and have at most "
            f"{WIDEST_ACCUMULATOR} bits"
        )


def steps_in_order(lowered: LoweredProgram) -> list[tuple[int, Step, list[Descriptor]]]:
    """Returns the number, the step and the descriptors of each step that has any."""
    grouped = itertools.groupby(lowered.descriptors, key=lambda descriptor: descriptor.step)
    return [(number, lowered.program.steps[number], list(group)) for number, group in grouped]

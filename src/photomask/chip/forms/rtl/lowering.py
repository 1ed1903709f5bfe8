"""Programs as passes of the reference design: descriptors, images and the place of every edge."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.formats import Interval
from photomask.chip.forms.rtl.context import PassContext
from photomask.chip.forms.rtl.convolution import convolution_passes, linear_passes
from photomask.chip.forms.rtl.descriptors import Descriptor
from photomask.chip.forms.rtl.elementwise import (
    add_passes,
    clamp_passes,
    interpolate_passes,
    lookup_passes,
    multiply_passes,
    pool_passes,
    requantize_passes,
    sum_passes,
)
from photomask.chip.forms.rtl.images import ImageBuilder
from photomask.chip.forms.rtl.memory_map import MemoryMap, place_edges
from photomask.chip.forms.rtl.moving import move_passes
from photomask.chip.forms.rtl.products import matmul_passes
from photomask.chip.forms.rtl.transformers import embedding_passes, normalize_passes, softmax_passes
from photomask.chip.program import IntegerProgram, Step
from photomask.documents import Document, aligned
from photomask.errors import TargetError

WIDEST_ACCUMULATOR = 48
MOST_LANES = 256
Passes = Callable[[PassContext], list[Descriptor]]

PASSES: Mapping[str, Passes] = {
    "add": add_passes,
    "average_pool": pool_passes,
    "clamp": clamp_passes,
    "concatenate": move_passes,
    "convolution": convolution_passes,
    "embedding": embedding_passes,
    "gather": move_passes,
    "interpolate": interpolate_passes,
    "linear": linear_passes,
    "lookup": lookup_passes,
    "matmul": matmul_passes,
    "max_pool": pool_passes,
    "multiply": multiply_passes,
    "normalize": normalize_passes,
    "pad": move_passes,
    "permute": move_passes,
    "requantize": requantize_passes,
    "reshape": move_passes,
    "slice": move_passes,
    "softmax": softmax_passes,
    "sum": sum_passes,
}
"""How each operator becomes passes. A constant needs none: it lies in a memory from the start."""


class StepSupport(Document):
    """Whether a step runs on the reference design, and if not, why."""

    step: str
    operator: str
    source: str
    """File and line of the model's code."""
    passes: int
    """Passes over a map; 0 for what does not run, and for constants."""
    reason: str | None = None
    """Why it does not run; None if it does."""


class SupportReport(Document):
    """Which steps of a program run on the reference design."""

    steps: tuple[StepSupport, ...]

    @property
    def runs(self) -> bool:
        """Whether all of them do."""
        return all(step.reason is None for step in self.steps)

    def __str__(self) -> str:
        rows = [("step", "operator", "passes", "why it does not run")]
        rows += [(s.step, s.operator, str(s.passes), s.reason or "") for s in self.steps]
        return "\n".join(aligned(rows))


@dataclass(frozen=True)
class LoweredProgram:
    """A program as the reference design runs it.

    Attributes:
        program: the program.
        accelerator: rows, columns and widths of the design.
        lanes: channels in a word of its memories.
        memory: where every edge and every copy lies.
        descriptors: the passes in their order, without the final stop.
        images: weights, parameters and tables.
    """

    program: IntegerProgram
    accelerator: Accelerator
    lanes: int
    memory: MemoryMap
    descriptors: tuple[Descriptor, ...]
    images: ImageBuilder = field(repr=False)

    def passes_of(self, number: int) -> list[Descriptor]:
        """Returns the passes of one step."""
        return [descriptor for descriptor in self.descriptors if descriptor.step == number]


def support_report(program: IntegerProgram, accelerator: Accelerator | str | Path) -> SupportReport:
    """Says of each step whether it runs on the reference design.

    Raises:
        TargetError: the accelerator is none that the design can be built as.
    """
    machine = load_accelerator(accelerator)
    return SupportReport(steps=tuple(_lower_steps(program, machine)[1]))


def lower(program: IntegerProgram, accelerator: Accelerator | str | Path) -> LoweredProgram:
    """Turns a program into passes, memory images and a memory map.

    Args:
        program: any program.
        accelerator: its rows, columns and widths are the design's.

    Raises:
        TargetError: names every step that does not run on the design and why, or says why the
            design cannot be built as this accelerator.
    """
    accelerator = load_accelerator(accelerator)
    lowered, support = _lower_steps(program, accelerator)
    problems = [
        f"step {step.step!r} ({step.operator}, {step.source}): {step.reason}"
        for step in support
        if step.reason is not None
    ]
    if problems:
        raise TargetError(
            f"{len(problems)} of {len(support)} steps do not run on the reference design as "
            f"{accelerator.name!r}: " + "; ".join(problems)
        )
    return lowered


def _lower_steps(
    program: IntegerProgram, accelerator: Accelerator
) -> tuple[LoweredProgram, list[StepSupport]]:
    lanes = math.lcm(accelerator.rows, accelerator.columns)
    _check_accelerator(accelerator, lanes)
    memory = place_edges(program, lanes, accelerator.activation_bits, accelerator.accumulator_bits)
    images = ImageBuilder(lanes)
    descriptors: list[Descriptor] = []
    support: list[StepSupport] = []
    for number, step in enumerate(program.steps):
        context = PassContext(
            program, accelerator, lanes, memory.edges, memory.copies, images, step
        )
        passes, reason = [], None
        try:
            passes = _passes_of(context)
        except TargetError as error:
            reason = str(error)
        support.append(
            StepSupport(
                step=step.name,
                operator=step.operator.kind,
                source=step.source,
                passes=len(passes),
                reason=reason,
            )
        )
        numbered = [replace(one, step=number) for one in passes]
        descriptors += numbered[:-1]
        descriptors += [replace(one, last_of_step=1) for one in numbered[-1:]]
    return (
        LoweredProgram(program, accelerator, lanes, memory, tuple(descriptors), images),
        support,
    )


def _passes_of(context: PassContext) -> list[Descriptor]:
    step = context.step
    for name in (*step.inputs, step.output):
        _check_edge(context, name)
    if step.operator.kind == "constant":
        return []
    passes = PASSES.get(step.operator.kind)
    if passes is None:
        raise TargetError(f"the design has no unit for the operator {step.operator.kind!r}")
    return passes(context)


def _check_edge(context: PassContext, name: str) -> None:
    edge, bits = context.program.edges[name], context.accelerator.accumulator_bits
    widest = Interval(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if not edge.interval.within(widest):
        raise TargetError(
            f"the edge {name!r} holds {edge.low} to {edge.high}, the accumulators have {bits} bits"
        )


def _check_accelerator(accelerator: Accelerator, lanes: int) -> None:
    """Refuses what the design cannot be built as."""
    name = f"accelerator {accelerator.name!r}"
    if accelerator.dataflow != "weight_stationary":
        raise TargetError(
            f"{name} is {accelerator.dataflow}; the reference design is weight stationary"
        )
    if lanes > MOST_LANES:
        raise TargetError(
            f"{name} has {accelerator.rows} rows and {accelerator.columns} columns, whose least "
            f"common multiple is {lanes}; the reference design has at most {MOST_LANES} lanes"
        )
    if not accelerator.activation_bits < accelerator.accumulator_bits <= WIDEST_ACCUMULATOR:
        raise TargetError(
            f"{name} has {accelerator.activation_bits}-bit activations and "
            f"{accelerator.accumulator_bits}-bit accumulators; the reference design's accumulators "
            f"are wider than its activations and have at most {WIDEST_ACCUMULATOR} bits"
        )


def steps_in_order(lowered: LoweredProgram) -> list[tuple[int, Step, list[Descriptor]]]:
    """Returns number, step and passes of each step that has any."""
    grouped = itertools.groupby(lowered.descriptors, key=lambda descriptor: descriptor.step)
    return [(number, lowered.program.steps[number], list(passes)) for number, passes in grouped]

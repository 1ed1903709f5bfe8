"""Writes a network as C: a function for each step, shared functions, and a memory plan."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from photomask.chip.forms.c.constants import Constants
from photomask.chip.forms.c.context import C, Context, Store
from photomask.chip.forms.c.memory_plan import Buffer, MemoryPlan, plan_memory
from photomask.chip.forms.c.requantize import rescale_function
from photomask.chip.forms.c.tensors import Tensor, tensors_of
from photomask.chip.forms.c.text import (
    arithmetic_type,
    comment,
    indent,
    size_of,
)
from photomask.chip.forms.c.units import Names, Unit, names_of, units_of
from photomask.chip.forms.writers import Problem, each_step
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.errors import FormError

MOST_ELEMENTS = (1 << 31) - 1
"""The most elements that an edge may have, because indices have the type `int`."""


@dataclass
class Function:
    """A step as a C function: its text, and the arguments that it is called with."""

    unit: Unit
    context: Context
    lines: list[str]


@dataclass
class Network:
    """Everything about a program's C source that the files are written from."""

    program: IntegerProgram
    name: str
    external: bool
    keep_edges: bool = False
    tensors: dict[str, Tensor] = field(init=False)
    names: Names = field(init=False)
    constants: Constants = field(init=False)
    kernels: dict[str, list[str]] = field(init=False, default_factory=dict)
    functions: list[Function] = field(init=False, default_factory=list)
    arrays: dict[str, str] = field(init=False, default_factory=dict)
    """The edges that are constant arrays, with the C expressions for the arrays."""
    problems: list[Problem] = field(init=False)
    """The reasons why there is no source; empty if there is one."""
    plan: MemoryPlan = field(init=False)

    def __post_init__(self) -> None:
        """Writes every step and plans the memory."""
        program = self.program
        self.tensors, self.names = tensors_of(program), names_of(program, self.name)
        self.constants = Constants(self.external)
        units = {unit.step.output: unit for unit in units_of(program, self.keep_edges)}

        def write(step: Step) -> None:
            for name in (*step.inputs, step.output):
                _require_countable(program.edges[name])
            if step.output in units:
                self._write(units[step.output])

        _, problems = each_step(program, write)
        self.problems = [*_problems_of_unread_inputs(program), *problems]
        self.plan = plan_memory(self._buffers())

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output edges, each once."""
        return tuple(dict.fromkeys(self.program.outputs))

    def _context(self, step: Step) -> Context:
        output = self.tensors[step.output]
        return Context(
            name=self.names.steps[step.output],
            edge=step.output,
            parameters=self.program.parameters(step),
            inputs=tuple(self.tensors[name] for name in step.inputs),
            output=output,
            store=Store(output),
            constants=self.constants,
            kernels=self.kernels,
        )

    def _write(self, unit: Unit) -> None:
        """Adds the function of a step, or its array if it is a constant."""
        context = self._context(unit.step)
        lines: list[str] = []
        if unit.rescaling is not None:
            behind, operator = unit.rescaling
            inner = self._context(behind)
            if behind is unit.step:
                inner.name += "_of"
                parameter = context.inputs[0].ctype
            else:
                parameter = arithmetic_type(context.output.interval)
            function = rescale_function(operator, inner, parameter)
            context.store = Store(inner.output, function)
            lines += [*self._description(behind), *inner.helpers]
        body = C.write(unit.step.operator, context)
        if context.array is not None:
            self.arrays[context.edge] = context.array
            return
        if unit.rescaling is None or unit.requantize is not None:
            lines += self._description(unit.step, unit.requantize)
        lines += [*context.helpers, _head(context), "{", *indent(body), "}", ""]
        self.functions.append(Function(unit, context, lines))

    def _description(self, step: Step, behind: Step | None = None) -> list[str]:
        """Returns the comment above a step's function."""
        lines = [
            f"/* Step {comment(step.name)}: {step.operator.kind}.",
            f" * From {comment(step.node)}, {comment(step.source)}.",
            *(f" * in:  {self._line(name)}" for name in step.inputs),
            f" * out: {self._line(step.output)}",
        ]
        if behind is not None:
            lines.append(f" *      each sum is requantized at once by step {comment(behind.name)}")
        return [*lines, " */"]

    def _line(self, edge: str) -> str:
        tensor, format = self.tensors[edge], self.program.edges[edge].format
        values = f"{tensor.interval.low} to {tensor.interval.high}"
        return f"{comment(edge)}: {format} {tensor.description}, values {values}"

    def _buffers(self) -> list[Buffer]:
        """Returns the buffers of all edges in the arena and of each step's working memory."""
        moments = {f.unit.output: moment for moment, f in enumerate(self.functions)}
        last = dict(moments)
        for moment, function in enumerate(self.functions):
            for name in function.unit.step.inputs:
                if name in last:
                    last[name] = moment
        end = len(self.functions)
        buffers = [
            Buffer(name, self.tensors[name].bytes, moment, end if self.keep_edges else last[name])
            for name, moment in moments.items()
            if name not in self.program.outputs
        ]
        for moment, function in enumerate(self.functions):
            for name, (ctype, count) in function.context.scratch.items():
                scratch = self.scratch_name(function.context, name)
                buffers.append(Buffer(scratch, size_of(ctype) * count, moment, moment))
        return buffers

    def scratch_name(self, context: Context, parameter: str) -> str:
        """Returns the name of working memory in the plan; no edge has this name."""
        name = f"{context.name} {parameter}"
        while name in self.program.edges:
            name += "'"
        return name


def _head(context: Context) -> str:
    """Returns the head of a step's function."""
    parameters = [
        f"const {x.ctype} *restrict {name}"
        for name, x in zip(context.input_names, context.inputs, strict=True)
    ]
    parameters.append(f"{context.store.y.ctype} *restrict y")
    parameters += [f"{ctype} *restrict {name}" for name, (ctype, _) in context.scratch.items()]
    head = f"static void {context.name}({', '.join(parameters)})"
    if len(head) > 100:
        head = f"static void {context.name}(\n    {(',' + chr(10) + '    ').join(parameters)})"
    return head


def _require_countable(edge: Edge) -> None:
    """Raises an error for an edge with more elements than a C index can count.

    Raises:
        FormError: names the edge and its shape.
    """
    if math.prod(edge.shape) > MOST_ELEMENTS:
        raise FormError(
            f"the edge {edge.name!r} of shape {list(edge.shape)} has more elements than an int of "
            f"C can count, which is {MOST_ELEMENTS}"
        )


def _problems_of_unread_inputs(program: IntegerProgram) -> Iterator[Problem]:
    """Yields the problems of inputs that belong to no step, because no step reads them."""
    for name in program.inputs:
        if program.links.readers[name]:
            continue
        try:
            _require_countable(program.edges[name])
        except FormError as error:
            yield Problem(name, "input", "no step reads it", str(error))

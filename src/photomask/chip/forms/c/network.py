"""The source of the network: constants, shared functions, a function per step, and `run`."""

from dataclasses import dataclass, field

import photomask
from photomask.chip.formats import IntFormat
from photomask.chip.forms.c.constants import Constants
from photomask.chip.forms.c.context import Site, Store
from photomask.chip.forms.c.loader import loader
from photomask.chip.forms.c.memory_plan import Buffer, MemoryPlan, plan_memory
from photomask.chip.forms.c.requantize import with_rescale
from photomask.chip.forms.c.table import EMITTERS
from photomask.chip.forms.c.tensors import Tensor, tensors_of
from photomask.chip.forms.c.text import (
    arithmetic_type,
    comment,
    indent,
    literal,
    size_of,
)
from photomask.chip.forms.c.units import Names, Unit, names_of, units_of
from photomask.chip.program import IntegerProgram, Step


@dataclass
class Function:
    """A step as C: its text, and what it is called with."""

    unit: Unit
    site: Site
    lines: list[str]


@dataclass
class Network:
    """Everything about a program's C source that files are written from."""

    program: IntegerProgram
    name: str
    external: bool
    keep_edges: bool
    tensors: dict[str, Tensor] = field(init=False)
    names: Names = field(init=False)
    constants: Constants = field(init=False)
    kernels: dict[str, list[str]] = field(init=False, default_factory=dict)
    functions: list[Function] = field(init=False, default_factory=list)
    arrays: dict[str, str] = field(init=False, default_factory=dict)
    """Edges that are constant arrays, and how C names those."""
    plan: MemoryPlan = field(init=False)

    def __post_init__(self) -> None:
        """Emits every step and plans the memory."""
        program = self.program
        self.tensors, self.names = tensors_of(program), names_of(program, self.name)
        self.constants = Constants(self.external)
        for unit in units_of(program, self.keep_edges):
            if unit.step.operator.kind == "constant":
                self._add_constant(unit.step)
            else:
                self.functions.append(self._function(unit))
        self.plan = plan_memory(self._buffers())

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output edges, each once."""
        return tuple(dict.fromkeys(self.program.outputs))

    def _add_constant(self, step: Step) -> None:
        """Makes the edge of a constant an array."""
        tensor = self.tensors[step.output]
        values = self.program.parameters(step)["value"].transpose(tensor.order)
        self.arrays[step.output] = self.constants.add(
            f"{self.names.steps[step.output]}_value",
            values,
            comment(f"edge {step.output}: {_shape(tensor)}"),
            tensor.ctype,
        )

    def _site(self, step: Step) -> Site:
        output = self.tensors[step.output]
        return Site(
            name=self.names.steps[step.output],
            operator=step.operator,
            parameters=self.program.parameters(step),
            inputs=tuple(self.tensors[name] for name in step.inputs),
            output=output,
            store=Store(output),
            constants=self.constants,
            kernels=self.kernels,
        )

    def _function(self, unit: Unit) -> Function:
        site, lines = self._site(unit.step), []
        behind = unit.requantize or (unit.step if unit.step.operator.kind == "requantize" else None)
        if behind is not None:
            inner = self._site(behind)
            if behind is unit.step:
                inner.name += "_of"
            alone = behind is unit.step
            parameter = site.inputs[0].ctype if alone else arithmetic_type(site.output.interval)
            site.store = with_rescale(inner, parameter)
            lines += [*self._description(behind), *inner.helpers]
        body = EMITTERS[unit.step.operator.kind](site)
        if behind is not unit.step:
            lines += self._description(unit.step, unit.requantize)
        lines += site.helpers
        parameters = [
            f"const {x.ctype} *restrict {name}"
            for name, x in zip(site.input_names, site.inputs, strict=True)
        ]
        parameters.append(f"{site.store.y.ctype} *restrict y")
        parameters += [f"{ctype} *restrict {name}" for name, (ctype, _) in site.scratch.items()]
        head = f"static void {site.name}({', '.join(parameters)})"
        if len(head) > 100:
            head = f"static void {site.name}(\n    {(',' + chr(10) + '    ').join(parameters)})"
        return Function(unit, site, [*lines, head, "{", *indent(body), "}", ""])

    def _description(self, step: Step, behind: Step | None = None) -> list[str]:
        """Returns the comment above a step's function."""
        lines = [
            f"/* Step {comment(step.name)}: {step.operator.kind}.",
            f" * From {comment(step.node)}, {comment(step.source)}.",
            *(f" * in:  {self._line(name)}" for name in step.inputs),
            f" * out: {self._line(step.output)}",
        ]
        if behind is not None:
            lines.append(f" *      each sum goes at once through step {comment(behind.name)}")
        return [*lines, " */"]

    def _line(self, edge: str) -> str:
        tensor, format = self.tensors[edge], self.program.edges[edge].format
        values = f"{tensor.interval.low} to {tensor.interval.high}"
        return f"{comment(edge)}: {format} {_shape(tensor)}, values {values}"

    def _buffers(self) -> list[Buffer]:
        """Returns every edge in the arena, and the working memory of each step."""
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
            for name, (ctype, count) in function.site.scratch.items():
                scratch = self.scratch_name(function.site, name)
                buffers.append(Buffer(scratch, size_of(ctype) * count, moment, moment))
        return buffers

    def scratch_name(self, site: Site, parameter: str) -> str:
        """Returns what working memory is called in the plan; no edge is called so."""
        name = f"{site.name} {parameter}"
        while name in self.program.edges:
            name += "'"
        return name


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}] {tensor.order_name}"


def prototype(network: Network) -> str:
    """Returns the declaration of `run` without its semicolon."""
    edges = network.names.edges
    parameters = [
        f"const {network.tensors[name].ctype} *{edges[name]}" for name in network.program.inputs
    ]
    parameters += [
        f"{network.tensors[name].ctype} *{_output_name(network, name)}" for name in network.outputs
    ]
    return f"int {network.name}_run(\n    {(',' + chr(10) + '    ').join(parameters)})"


def _output_name(network: Network, edge: str) -> str:
    name = network.names.edges[edge]
    copied = edge in network.program.inputs or edge in network.arrays
    return f"edge_copy_of_{name}" if copied else name


def render(network: Network) -> str:
    """Returns the source file."""
    run = _run(network)  # adds kernels
    kernels = [line for lines in network.kernels.values() for line in [*lines, ""]]
    parts = [
        *_head(network),
        *_arena(network),
        *network.constants.declarations(),
        "",
        *kernels,
        *(line for function in network.functions for line in function.lines),
        *(
            loader(network.name, network.program.content_hash(), network.constants)
            if network.external
            else []
        ),
        *run,
        *(_edge_access(network) if network.keep_edges else []),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _head(network: Network) -> list[str]:
    return [
        f"/* {network.name}.c: an integer program of {len(network.program.steps)} steps.",
        f" * Written by Photomask {photomask.__version__} from the program",
        f" * {network.program.content_hash()}.",
        " * Every number is an integer; sums stay inside their types for every input. */",
        f'#include "{network.name}.h"',
        "",
        "#include <limits.h>",
        "#include <string.h>",
        "",
        "/* What is assumed beyond C11. */",
        '_Static_assert(CHAR_BIT == 8 && INT_MAX >= INT32_MAX, "int has at least 32 bits");',
        '_Static_assert((int64_t)UINT64_MAX == -1, "unsigned integers convert modulo 2^64");',
        '_Static_assert((int32_t)UINT32_MAX == -1, "unsigned integers convert modulo 2^32");',
        "",
    ]


def _arena(network: Network) -> list[str]:
    plan = network.plan
    if not plan.bytes:
        return []
    rows = [
        f" * {plan.offsets[b.name]:>9}  {b.bytes:>9}  {b.first:>4} to {b.last:<4}  "
        f"{comment(b.name)}"
        for b in plan.buffers
    ]
    return [
        f"/* Memory plan: {plan.bytes} bytes ({plan.needed} are needed at one moment). What lives",
        " * at different times shares bytes, in integers of different widths: compile with",
        " * -fno-strict-aliasing.",
        " *    offset      bytes  functions     what",
        *rows,
        " */",
        f"static _Alignas(16) unsigned char arena[{plan.bytes}];",
        "",
        "/* Volatile, so that no compiler knows which address a step is called with: GCC 12 at -O2",
        " * copies steps for known addresses, and then drops calls of such copies as if they wrote",
        " * nothing. */",
        "static unsigned char *volatile arena_start = arena;",
        "",
    ]


def _run(network: Network) -> list[str]:
    """Returns the entry point."""
    lines = []
    if network.external:
        lines += ["if (!constants_loaded) {", "    return -1;", "}"]
    for index, name in enumerate(network.program.inputs, start=1):
        lines += _range_check(network, name, index)
    offsets = network.plan.offsets
    if offsets:
        lines.append("unsigned char *const start = arena_start;")
    for function in network.functions:
        name = function.unit.output
        if name in offsets:
            ctype = network.tensors[name].ctype
            lines.append(
                f"{ctype} *const {network.names.edges[name]} = (void *)(start + {offsets[name]});"
            )
    for function in network.functions:
        arguments = [_pointer(network, name) for name in function.unit.step.inputs]
        arguments.append(_pointer(network, function.unit.output))
        arguments += [
            f"(void *)(start + {offsets[network.scratch_name(function.site, name)]})"
            for name in function.site.scratch
        ]
        lines.append(f"{function.site.name}({', '.join(arguments)});")
    for name in network.outputs:
        if name in network.program.inputs or name in network.arrays:
            size = network.tensors[name].bytes
            lines.append(
                f"memcpy({_output_name(network, name)}, {_pointer(network, name)}, {size});"
            )
    return [prototype(network), "{", *indent([*_unused(network), *lines, "return 0;"]), "}", ""]


def _unused(network: Network) -> list[str]:
    read = {name for step in network.program.steps for name in step.inputs}
    return [
        f"(void){network.names.edges[name]};"
        for name in network.program.inputs
        if name not in read and name not in network.program.outputs
    ]


def _pointer(network: Network, edge: str) -> str:
    return network.arrays.get(edge, network.names.edges[edge])


def _range_check(network: Network, name: str, index: int) -> list[str]:
    """Returns the refusal of codes that the program does not hold, where C's type could."""
    tensor = network.tensors[name]
    bits, signed = size_of(tensor.ctype) * 8, not tensor.ctype.startswith("u")
    if bits == 64 and not signed:
        bits = 63
    if tensor.interval == IntFormat(bits=bits, signed=signed).interval:
        return []
    kernel = f"holds_{tensor.ctype.removesuffix('_t')}"
    ctype = "int64_t" if size_of(tensor.ctype) > 2 else "int32_t"
    network.kernels.setdefault(
        kernel,
        [
            "/* Whether every element lies between low and high. */",
            f"static int {kernel}(const {tensor.ctype} *x, int count, {ctype} low, {ctype} high)",
            "{",
            "    for (int i = 0; i < count; i++) {",
            f"        if (({ctype})x[i] < low || ({ctype})x[i] > high) {{",
            "            return 0;",
            "        }",
            "    }",
            "    return 1;",
            "}",
        ],
    )
    low, high = (literal(end, ctype) for end in (tensor.interval.low, tensor.interval.high))
    edge = network.names.edges[name]
    return [
        f"if (!{kernel}({edge}, {tensor.elements}, {low}, {high})) {{",
        f"    return {index};",
        "}",
    ]


def _edge_access(network: Network) -> list[str]:
    lines = []
    for index, name in enumerate(network.program.edges):
        if name in network.plan.offsets:
            lines += [f"case {index}:", f"    return arena + {network.plan.offsets[name]};"]
        elif name in network.arrays:
            lines += [f"case {index}:", f"    return {network.arrays[name]};"]
    return [
        f"const void *{network.name}_edge(int index)",
        "{",
        "    switch (index) {",
        *indent(lines),
        "    default:",
        "        return NULL;",
        "    }",
        "}",
        "",
    ]

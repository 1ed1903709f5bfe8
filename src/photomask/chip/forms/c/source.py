"""Writes the source file of the network: constants, functions for the steps, and `run`."""

import photomask
from photomask.chip.formats import IntFormat
from photomask.chip.forms.c.loader import loader
from photomask.chip.forms.c.network import Network
from photomask.chip.forms.c.sparse_kernels import INCLUDE
from photomask.chip.forms.c.text import comment, indent, literal, size_of


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
    """Returns the text of the source file."""
    run = _run(network)  # it adds shared functions, which must be known before they are written
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
        " * All arithmetic uses integers, and every sum fits its type for every input. */",
        f'#include "{network.name}.h"',
        "",
        "#include <limits.h>",
        "#include <string.h>",
        *(INCLUDE if any(name.startswith("sparse_") for name in network.kernels) else []),
        "",
        "/* The code relies on these properties, which C11 alone does not guarantee. */",
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
        f"/* Memory plan: {plan.bytes} bytes, of which {plan.needed} are needed at one moment.",
        " * Buffers that are needed at different times share bytes, as integers of different",
        " * widths. Therefore compile with -fno-strict-aliasing.",
        " *    offset      bytes  functions     buffer",
        *rows,
        " */",
        f"static _Alignas(16) unsigned char arena[{plan.bytes}];",
        "",
        "/* The pointer is volatile, so that no compiler knows the addresses that a step gets.",
        " * GCC 12 at -O2 makes copies of a step for known addresses, and then removes calls of",
        " * these copies as if they wrote nothing. */",
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
            f"(void *)(start + {offsets[network.scratch_name(function.context, name)]})"
            for name in function.context.scratch
        ]
        lines.append(f"{function.context.name}({', '.join(arguments)});")
    for name in network.outputs:
        if name in network.program.inputs or name in network.arrays:
            size = network.tensors[name].bytes
            lines.append(
                f"memcpy({_output_name(network, name)}, {_pointer(network, name)}, {size});"
            )
    return [prototype(network), "{", *indent([*_unused(network), *lines, "return 0;"]), "}", ""]


def _unused(network: Network) -> list[str]:
    program = network.program
    return [
        f"(void){network.names.edges[name]};"
        for name in program.inputs
        if not program.links.readers[name] and name not in program.outputs
    ]


def _pointer(network: Network, edge: str) -> str:
    return network.arrays.get(edge, network.names.edges[edge])


def _range_check(network: Network, name: str, index: int) -> list[str]:
    """Returns lines that refuse codes outside the input's interval, if the C type can hold any."""
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
            "/* Tells whether every element lies between low and high. */",
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

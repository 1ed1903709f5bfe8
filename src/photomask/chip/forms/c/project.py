"""Turns a program into the files of a C project."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from photomask.chip.forms.c.constants import HEADER_BYTES
from photomask.chip.forms.c.memory_plan import MemoryPlan
from photomask.chip.forms.c.network import Network
from photomask.chip.forms.c.source import prototype, render
from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import KEYWORDS, comment, identifiers, size_of, string
from photomask.chip.forms.writers import require_none
from photomask.chip.program import IntegerProgram
from photomask.errors import UsageError

NAME = "network"
"""The default name of a project's functions and files."""
OUTPUT = "C project"
"""The name of the kind of output in the record of a project's folder."""
CONSTANTS_FILE = "constants.bin"
"""The file that holds the constants of a project whose weights are "binary"."""
TEMPLATES = Path(__file__).parent / "templates"
Weights = Literal["arrays", "binary"]
"""Where the constants are: in the source, or in a file of their own."""
WITHOUT_C = "such a program can run only in TorchEngine"
"""What an error message suggests for a program that C cannot express."""


@dataclass(frozen=True)
class CSource:
    """A C project, and what its caller needs to know about it."""

    name: str
    """The name of the files, and of the entry point `<name>_run`."""
    files: dict[str, bytes]
    """The content of the files by name: `<name>.c`, `<name>.h`, `main.c`, `Makefile`,
    `constants.bin`.

    The last file is only there if the weights are "binary".
    """
    inputs: tuple[str, ...]
    """The input edges in the order of the entry point's parameters."""
    outputs: tuple[str, ...]
    """The output edges in the order of the parameters behind the inputs; each edge once."""
    tensors: dict[str, Tensor]
    """The C type and the element order of every edge."""
    plan: MemoryPlan
    """The places of edges and working memory in the arena."""

    @property
    def arena_bytes(self) -> int:
        """The bytes of static memory for activations and working memory."""
        return self.plan.bytes


def generate_c(
    program: IntegerProgram,
    *,
    name: str = NAME,
    weights: Weights = "arrays",
    keep_edges: bool = False,
    also_check: str | None = None,
) -> CSource:
    """Returns a program as a C11 project that needs no libraries.

    The network has a function for every step, uses only integers and allocates no memory. It
    computes the oracle's integers, because the type of each sum holds every partial sum that can
    occur.

    Args:
        program: the program that the project computes.
        name: the prefix of its functions and files: lower-case letters, digits and `_`.
        weights: "arrays" writes constants into the source. "binary" writes them into a file beside
            it, which `<name>_load` must get before the first run.
        keep_edges: whether every edge has memory of its own, to which `<name>_edge` returns a
            pointer.
        also_check: a folder beside the project's files with another project, which `make check` and
            `make sanitize` run first.

    Raises:
        UsageError: the name is not a C identifier, or `weights` is neither "arrays" nor "binary".
        FormError: names all steps that C cannot express.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name in KEYWORDS or name == "load":
        raise UsageError(
            f"{name!r} cannot be the name of a C library: use lower-case letters, digits and _, "
            "begin with a letter, and use at most 40 characters"
        )
    require_weights(weights)
    network = Network(program, name, external=weights == "binary", keep_edges=keep_edges)
    require_none(network.problems, "C", WITHOUT_C)
    source = render(network)
    files = {
        f"{name}.c": source,
        f"{name}.h": _header(network),
        "main.c": _main(network),
        "Makefile": _makefile(network, also_check),
    }
    encoded = {path: text.encode("ascii") for path, text in files.items()}
    if network.external:
        encoded[CONSTANTS_FILE] = network.constants.file_content(program.content_hash())
    return CSource(name, encoded, program.inputs, network.outputs, network.tensors, network.plan)


def require_weights(weights: str) -> None:
    """Raises an error for an unknown place of constants.

    Raises:
        UsageError: `weights` is neither "arrays" nor "binary".
    """
    if weights not in ("arrays", "binary"):
        raise UsageError(f"weights can be written as 'arrays' or 'binary', not {weights!r}")


def _header(network: Network) -> str:
    guard = f"{network.name.upper()}_H"
    lines = [
        f"/* {network.name}: an integer program, written by Photomask. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    if network.external:
        lines += [
            "/* Copies the constants; call it once before the first run.",
            f" * file, size: the bytes of {CONSTANTS_FILE}; they may be freed afterwards.",
            " * Returns 0; or 1: these are no constants, 2: they are of another program, 3: their",
            " * size is wrong, 4: they were altered, 5: this processor is not little-endian. */",
            f"int {network.name}_load(const void *file, size_t size);",
            "",
        ]
    lines += [
        "/* Runs the program on one sample. The parameters are the inputs, then the outputs.",
        " *",
    ]
    for name in (*network.program.inputs, *network.outputs):
        edge, tensor = network.program.edges[name], network.tensors[name]
        shape = ", ".join(str(tensor.shape[axis]) for axis in tensor.order)
        order = "" if tensor.order_name == "row major" else f" ({tensor.order_name})"
        lines.append(
            f" * {comment(name)}: {edge.format} [{shape}]{order}, {edge.low} to {edge.high}"
        )
    not_loaded = "; -1: no constants loaded" if network.external else ""
    lines += [
        " *",
        " * The last axis is the fastest. No two tensors may overlap. Working memory is static, so",
        " * only one thread at a time may run the program.",
        f" * Returns 0; or n > 0: input n has a number outside its range{not_loaded}. */",
        f"{prototype(network)};",
    ]
    if network.keep_edges:
        lines += [
            "",
            "/* Returns the edge of the program with this index, as the last run left it. Returns",
            " * NULL for inputs and outputs, whose memory belongs to the caller. */",
            f"const void *{network.name}_edge(int index);",
        ]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif"]
    return "\n".join(lines) + "\n"


def _main(network: Network) -> str:
    inputs, outputs = network.program.inputs, network.outputs
    tensors = [network.tensors[name] for name in (*inputs, *outputs)]
    buffers = identifiers(
        [f"input_{name}" for name in inputs] + [f"output_{name}" for name in outputs]
    )
    rows = [
        _row(name, buffer, tensor)
        for name, buffer, tensor in zip((*inputs, *outputs), buffers, tensors, strict=True)
    ]
    usage = f" {CONSTANTS_FILE}" if network.external else ""
    integers = sum(network.tensors[name].elements for name in outputs)
    declared = [
        f"static {tensor.ctype} {buffer}[{tensor.elements}];"
        for buffer, tensor in zip(buffers, tensors, strict=True)
    ]
    declared += ["", f"#define INTEGERS ((size_t){integers}) /* in the outputs of a sample */"]
    declared.append(f"#define GOLDEN_BYTES {sum(network.tensors[n].bytes for n in outputs)}")
    if network.external:
        declared.append(f"#define CONSTANTS_BYTES {HEADER_BYTES + network.constants.size}")
    load = (TEMPLATES / "load.c").read_text(encoding="ascii") if network.external else ""
    call = "    if (load(argv[4]) != 0) {\n        return 2;\n    }\n" if network.external else ""
    text = (TEMPLATES / "main.c").read_text(encoding="ascii")
    return _filled(
        text.replace("@LOAD@\n", load),
        {
            "BUFFERS": "\n".join(declared),
            "INPUTS": "\n".join(rows[: len(inputs)]),
            "OUTPUTS": "\n".join(rows[len(inputs) :]),
            "MOST_AXES": str(max(len(tensor.shape) for tensor in tensors)),
            "CONSTANTS_USAGE": usage,
            "ARGUMENTS": ", ".join(buffers),
            "ARGC": "5" if network.external else "4",
            "CALL_LOAD": call,
            "NAME": network.name,
        },
    )


def _row(name: str, buffer: str, tensor: Tensor) -> str:
    sizes = ", ".join(str(tensor.shape[axis]) for axis in tensor.order)
    axes = ", ".join(map(str, tensor.order))
    signed = int(not tensor.ctype.startswith("u"))
    return (
        f"    {{{string(name)}, {buffer}, {tensor.elements}, {size_of(tensor.ctype)}, {signed}, "
        f"{len(tensor.shape)}, {{{sizes}}}, {{{axes}}}}},"
    )


def _makefile(network: Network, also_check: str | None) -> str:
    text = (TEMPLATES / "Makefile").read_text(encoding="ascii")
    values = {
        "NAME": network.name,
        "CONSTANTS": f" {CONSTANTS_FILE}" if network.external else "",
    }
    for goal in ("check", "sanitize", "clean"):
        first = f"\t$(MAKE) --no-print-directory -C {also_check} {goal}\n" if also_check else ""
        values[f"FIRST_{goal.upper()}"] = first
    return _filled(text, values)


def _filled(text: str, values: dict[str, str]) -> str:
    """Returns a template with values in its placeholders, which are written @LIKE_THIS@."""
    for place, value in values.items():
        text = text.replace(f"@{place}@", value)
    return text

"""Writes nested loops over tensors whose elements lie in different orders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from photomask.chip.forms.c.text import indent

VARIABLES = "ijklmn"
Body = Callable[[dict[str, str]], list[str]]
"""A function from the offset of each operand, as a C expression, to the innermost lines."""


@dataclass(frozen=True)
class Operand:
    """How the offset into one tensor depends on the loops, the outermost loop first."""

    strides: tuple[int, ...]
    start: int = 0
    through: Mapping[int, str] = field(default_factory=dict)
    """Tables of loops whose variable is an index into a table: `table[i] * stride`."""


def nest(
    sizes: Sequence[int],
    operands: Mapping[str, Operand],
    body: Body,
    variables: str = VARIABLES,
) -> list[str]:
    """Returns loops over `sizes` around `body`, as few as the strides of all operands allow.

    Args:
        sizes: the sizes of the loops, outermost first.
        operands: the tensors that are read and written inside.
        body: returns the innermost lines from the offset of each operand.
        variables: the names of the loop variables; a nest inside another one needs names of its
            own.
    """
    loops = [axis for axis, size in enumerate(sizes) if size > 1 or _is_tabled(operands, axis)]
    merged: list[list[int]] = []
    for axis in loops:
        if merged and _merge(sizes, operands, merged[-1][-1], axis):
            merged[-1].append(axis)
        else:
            merged.append([axis])
    names = dict(zip((group[-1] for group in merged), variables, strict=False))
    lines = body({name: _offset(operand, names) for name, operand in operands.items()})
    for group in reversed(merged):
        count, variable = 1, names[group[-1]]
        for axis in group:
            count *= sizes[axis]
        lines = [
            f"for (int {variable} = 0; {variable} < {count}; {variable}++) {{",
            *indent(lines),
            "}",
        ]
    return lines


def total(*offsets: str) -> str:
    """Returns the sum of offsets, without those that are 0."""
    return " + ".join(offset for offset in offsets if offset != "0") or "0"


def scoped(lines: list[str]) -> list[str]:
    """Returns the lines in a block of their own if no loop is left around their declarations."""
    return lines if lines[0].startswith("for ") else ["{", *indent(lines), "}"]


def _is_tabled(operands: Mapping[str, Operand], axis: int) -> bool:
    return any(axis in operand.through for operand in operands.values())


def _merge(sizes: Sequence[int], operands: Mapping[str, Operand], outer: int, inner: int) -> bool:
    if _is_tabled(operands, outer) or _is_tabled(operands, inner):
        return False
    return all(
        operand.strides[outer] == operand.strides[inner] * sizes[inner]
        for operand in operands.values()
    )


def _offset(operand: Operand, names: Mapping[int, str]) -> str:
    terms = []
    for axis, variable in names.items():
        stride = operand.strides[axis]
        if stride:
            value = operand.through.get(axis, "{}").format(variable)
            terms.append(value if stride == 1 else f"{value} * {stride}")
    if operand.start or not terms:
        terms.append(str(operand.start))
    return " + ".join(terms).replace("+ -", "- ")

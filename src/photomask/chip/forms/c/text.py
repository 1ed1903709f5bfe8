"""Writes C types, literals, comments and identifiers."""

import re
from collections.abc import Sequence

import numpy as np

from photomask.chip.formats import Interval, IntFormat

INT32 = IntFormat(bits=32, signed=True).interval
KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "main",
        "arena",
        "arena_start",
        "start",
        "constants",
    ]
)
LONGEST_NAME = 48
WIDTHS = (8, 16, 32, 64)


def c_type(interval: Interval) -> str:
    """Returns the narrowest C type that holds every integer of `interval`."""
    bits = next(width for width in WIDTHS if interval.bits <= width)
    return f"int{bits}_t" if interval.low < 0 else f"uint{bits}_t"


def arithmetic_type(*parts: Interval | int) -> str:
    """Returns `int32_t` if it holds all parts, else `int64_t`.

    Args:
        parts: the intervals and numbers of every operand, intermediate value and result.
    """
    return "int32_t" if Interval.hull(*parts).within(INT32) else "int64_t"


def numpy_type(ctype: str) -> np.dtype:
    """Returns the little-endian NumPy dtype of a C type."""
    return np.dtype(ctype.removesuffix("_t")).newbyteorder("<")


def size_of(ctype: str) -> int:
    """Returns the size of a C type in bytes."""
    return numpy_type(ctype).itemsize


def literal(value: int, ctype: str = "int32_t") -> str:
    """Returns an integer constant of type `ctype` (at least `int`), in parentheses if negative."""
    if value == -(1 << 63):
        return "INT64_MIN"
    if value == -(1 << 31) and ctype != "int64_t":
        return "INT32_MIN"
    text = f"INT64_C({abs(value)})" if ctype == "int64_t" else str(abs(value))
    return f"(-{text})" if value < 0 else text


def comment(text: str) -> str:
    """Returns the text in a form that is safe inside a comment: ASCII, one line, no comment end."""
    plain = ascii(text)[1:-1].replace("\\'", "'").replace("\\\\", "/")
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").rstrip("\\")


def string(text: str) -> str:
    """Returns a C string literal of the comment-safe form of `text`."""
    escaped = comment(text).replace("\\", "/").replace('"', "'")
    return f'"{escaped}"'


def stem(name: str) -> str:
    """Returns a name with the letters, digits and inner `_` that C allows."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name).strip("_")[:LONGEST_NAME].strip("_") or "unnamed"
    taken = plain[0].isdigit() or plain in KEYWORDS or re.fullmatch(r"u?int\d+_t", plain)
    return f"n_{plain}" if taken else plain


def identifiers(names: Sequence[str], ends: tuple[str, ...] = ()) -> list[str]:
    """Returns a C identifier for each name; equal and similar names get different identifiers.

    Args:
        names: any texts.
        ends: endings that no identifier may have, because derived names have them.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        plain, copy = stem(name), 1
        candidate = plain
        while candidate in taken or candidate.endswith(ends):
            copy += 1
            candidate = f"{plain}_{copy}"
        taken.add(candidate)
        result.append(candidate)
    return result


def affine(*terms: tuple[str, int], constant: int = 0) -> str:
    """Returns `sum(name * factor) + constant`, without factors of 1 and without terms of 0.

    Args:
        terms: names, or expressions in parentheses, with their factors.
        constant: the number to add.
    """
    parts = [name if factor == 1 else f"{name} * {factor}" for name, factor in terms if factor]
    text = " + ".join(parts)
    if not text:
        return str(constant)
    return text if constant == 0 else f"{text} {'-' if constant < 0 else '+'} {abs(constant)}"


def indent(lines: Sequence[str], by: int = 1) -> list[str]:
    """Returns the lines indented by four spaces per level."""
    return [f"{'    ' * by}{line}" if line else line for line in lines]

"""The constant integers of a program, as arrays in the source or as one file that is loaded."""

from dataclasses import dataclass, field

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.c.text import c_type, numpy_type, size_of

PER_LINE = 20
MAGIC = b"PMCONST1"
HEADER_BYTES = 56
"""The bytes of the header: the magic number, the program's SHA-256, and the data's size and
checksum.
"""


@dataclass
class Constants:
    """Collects constant arrays and gives each a C expression."""

    external: bool
    arrays: dict[str, tuple[str, np.ndarray, str]] = field(default_factory=dict)
    """The C type, the values and the comment of each array, by name."""
    _names: dict[tuple[bytes, str], str] = field(default_factory=dict)
    """The name of each array, by its values and C type.

    Equal arrays, such as a weight that two layers share, are written only once.
    """

    def add(self, name: str, values: np.ndarray, note: str, ctype: str | None = None) -> str:
        """Adds an array, in memory order, and returns the C expression for it.

        An equal array that was added before keeps its first name.

        Args:
            name: a C identifier that no other array has.
            values: integers.
            note: what the integers are, for a comment.
            ctype: the C type of an element; None takes the narrowest type that holds all values.
        """
        ctype = ctype or c_type(Interval(int(values.min()), int(values.max())))
        same = values.astype(np.int64).tobytes(), ctype
        name = self._names.setdefault(same, name)
        if name not in self.arrays:
            self.arrays[name] = (ctype, values.reshape(-1), note)
        return f"constants.{name}" if self.external else name

    def declarations(self) -> list[str]:
        """Returns the arrays with their values, or the structure that a file fills."""
        if not self.external:
            return [line for name in self.arrays for line in self._array(name)]
        if not self.arrays:
            return []
        fields = [
            f"    {ctype} {name}[{values.size}]; /* {note} */"
            for name, ctype, values, note in self._packed()
        ]
        return [
            "/* A file fills this structure. The widest types come first, so that it has no gaps. "
            "*/",
            "static struct {",
            *fields,
            "} constants;",
            f'_Static_assert(sizeof constants == {self.size}, "the constants have no gaps");',
        ]

    @property
    def size(self) -> int:
        """The bytes of all arrays, rounded up to a multiple of the widest element."""
        widest = max((size_of(ctype) for ctype, _, _ in self.arrays.values()), default=1)
        used = sum(size_of(ctype) * values.size for ctype, values, _ in self.arrays.values())
        return -(-used // widest) * widest

    def file_content(self, program_sha256: str) -> bytes:
        """Returns the content of the little-endian file that fills the structure."""
        data = b"".join(
            values.astype(numpy_type(ctype)).tobytes() for _, ctype, values, _ in self._packed()
        ).ljust(self.size, b"\0")
        size, check = len(data).to_bytes(8, "little"), checksum(data).to_bytes(8, "little")
        return MAGIC + bytes.fromhex(program_sha256) + size + check + data

    def _packed(self) -> list[tuple[str, str, np.ndarray, str]]:
        rows = [(name, *entry) for name, entry in self.arrays.items()]
        return sorted(rows, key=lambda row: -size_of(row[1]))

    def _array(self, name: str) -> list[str]:
        ctype, values, note = self.arrays[name]
        texts = [_element(int(value), ctype) for value in values]
        rows = [
            "    " + ", ".join(texts[start : start + PER_LINE]) + ","
            for start in range(0, len(texts), PER_LINE)
        ]
        return [f"/* {note} */", f"static const {ctype} {name}[{values.size}] = {{", *rows, "};"]


def checksum(data: bytes) -> int:
    """Returns the sum of the bytes and the sum of their running sums, each modulo 2**32.

    Source: Fletcher 1982, with binary sums.
    """
    octets = np.frombuffer(data, np.uint8).astype(np.uint64)
    running = np.cumsum(octets, dtype=np.uint64)
    low = int(running[-1]) if len(octets) else 0
    high = int(running.sum(dtype=np.uint64))
    return (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF


def _element(value: int, ctype: str) -> str:
    if size_of(ctype) == 8:
        return "INT64_MIN" if value == -(1 << 63) else f"INT64_C({value})"
    return "INT32_MIN" if value == -(1 << 31) else str(value)

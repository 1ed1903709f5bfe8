"""Writes and reads one tensor as one file: packed words, decimal text, or a NumPy array."""

import io
import math
import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from photomask.arrays import array_from, int64_array
from photomask.chip.formats import storage_dtype
from photomask.chip.forms.memory.element_order import ElementOrder
from photomask.chip.forms.memory.word_text import Base, parse_words, render_words
from photomask.chip.packing import Packing, pack, unpack
from photomask.errors import DataError, DocumentError

DECIMAL = re.compile(r"[+-]?\d{1,19}")
INT64 = np.iinfo(np.int64)
ROOM_BYTES = 1 << 16
"""How many bytes a file may hold beside the numbers, for comments and headers."""


class Encoding(StrEnum):
    """The encoding of a file of integers; its value is also the file's extension."""

    HEX = "hex"
    """The file holds packed words, one per line, for `$readmemh`."""
    BIN = "bin"
    """The file holds packed words, one per line, for `$readmemb`."""
    DEC = "dec"
    """The file holds one element per line in signed decimal, in memory order."""
    NPY = "npy"
    """The file holds the tensor in its own shape and axis order, in the narrowest NumPy integer
    type.
    """

    @property
    def packed(self) -> bool:
        """Whether the file holds words rather than elements."""
        return self in (Encoding.HEX, Encoding.BIN)


@dataclass(frozen=True)
class Image:
    """The content of a file of integers."""

    values: np.ndarray
    """int64 [k], in memory order. There are fewer than the tensor has if the file is too short."""
    unknown: np.ndarray | None
    """bool [k], True for elements with the digits `x` or `z`. None if no element has any."""
    entries: int
    """How many words (hex, bin) or elements (dec, npy) the file holds."""


def entries_of(encoding: Encoding, packing: Packing, elements: int) -> int:
    """Returns how many words (hex, bin) or elements (dec, npy) a complete file holds."""
    return packing.words(elements) if encoding.packed else elements


def most_bytes(encoding: Encoding, packing: Packing, elements: int) -> int:
    """Returns how many bytes are read of a file at most.

    The limit is eight times the size of the file that `encode` writes, plus `ROOM_BYTES`.
    """
    digits = packing.word_bits if encoding is Encoding.BIN else 24
    return 8 * (digits + 2) * max(entries_of(encoding, packing, elements), elements) + ROOM_BYTES


def encode(
    tensor: np.ndarray, order: ElementOrder, packing: Packing, encoding: Encoding, title: str
) -> bytes:
    """Returns a tensor as the bytes of a file.

    Args:
        tensor: integers in the tensor's own axes.
        order: the memory order of the elements (hex, bin, dec).
        packing: the format of the elements and the layout of the words (hex, bin).
        encoding: the encoding of the file.
        title: the comment in the first line of the file, one ASCII line (hex, bin).

    Raises:
        DataError: a value is outside the format.
    """
    if encoding is Encoding.NPY:
        buffer = io.BytesIO()
        plain = np.ascontiguousarray(tensor.astype(storage_dtype(packing.format)))
        np.lib.format.write_array(buffer, plain.reshape(tensor.shape), allow_pickle=False)
        return buffer.getvalue()
    flat = order.flatten(tensor)
    if encoding is Encoding.DEC:
        return "".join(f"{value}\n" for value in flat.tolist()).encode()
    base: Base = "hex" if encoding is Encoding.HEX else "bin"
    words = render_words(pack(flat, packing), packing.word_bits, base)
    return f"// {title}\n".encode("ascii") + words


def decode(
    data: bytes,
    shape: tuple[int, ...],
    order: ElementOrder,
    packing: Packing,
    encoding: Encoding,
) -> Image:
    """Reads a file of integers that `encode` or a simulator wrote.

    Args:
        data: the bytes of the file.
        shape: the shape of the tensor, in its own axes.
        order: the memory order of the elements.
        packing: the format of the elements and the layout of the words.
        encoding: the encoding of the file.

    Raises:
        DocumentError: the bytes do not have this encoding; the message says where.
    """
    if encoding is Encoding.NPY:
        return _decode_npy(data, shape, order)
    if encoding is Encoding.DEC:
        return _decode_dec(data)
    base: Base = "hex" if encoding is Encoding.HEX else "bin"
    found = parse_words(data, packing.word_bits, base, packing.words(math.prod(shape)))
    elements = min(math.prod(shape), len(found.words) * packing.lanes // packing.words_per_element)
    values = unpack(found.words, packing, elements)
    unknown = None
    if found.unknown is not None:
        unknown = unpack(found.unknown, packing, elements) != 0
    return Image(values, unknown, len(found.words))


def _decode_npy(data: bytes, shape: tuple[int, ...], order: ElementOrder) -> Image:
    array = array_from(io.BytesIO(data), len(data))
    if array.dtype.kind not in "iu":
        raise DocumentError(f"the file holds {array.dtype}, expected integers")
    try:
        array = int64_array(array, "the array")
    except DataError as error:
        raise DocumentError(str(error)) from error
    if array.shape not in (shape, shape[1:]):
        raise DocumentError(f"the file has the shape {list(array.shape)}, expected {list(shape)}")
    values = order.flatten(array.reshape(shape))
    return Image(values, None, values.size)


def _decode_dec(data: bytes) -> Image:
    """Reads one integer per line; `x` or `z` marks an element without a known value."""
    try:
        tokens = data.decode("ascii").split()
        values = np.array(list(map(int, tokens)), dtype=np.int64)
    except (ValueError, OverflowError):
        return _decode_odd_dec(data)
    return Image(values, None, len(values))


def _decode_odd_dec(data: bytes) -> Image:
    values, unknown = [], []
    for number, line in enumerate(data.decode("latin-1").split("\n"), start=1):
        for token in line.partition("//")[0].split():
            unknown.append(token.lower() in ("x", "z"))
            if unknown[-1]:
                values.append(0)
            elif DECIMAL.fullmatch(token) and INT64.min <= int(token) <= INT64.max:
                values.append(int(token))
            else:
                raise DocumentError(
                    f"line {number} holds {token[:40]!a}, expected a decimal integer"
                )
    marks = np.array(unknown, dtype=bool)
    return Image(np.array(values, dtype=np.int64), marks if marks.any() else None, len(values))

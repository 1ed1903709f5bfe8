"""Weights without gaps: a stream of bits that runs on from word to word.

The lanes of `packing` leave bits of a word unused: five 6-bit weights take 30 of 32 bits. In a
stream, element `i` of `b` bits takes the stream's bits `i*b` to `i*b + b - 1`, and stream bit `j`
lies in word `j // word_bits`. An element may therefore begin in one word and end in the next.

- If `first_bit` is "least_significant", each element begins with its least significant bit. Stream
  bit `j` is bit `j % word_bits` of its word, counted from the least significant bit.
- If it is "most_significant", each element begins with its most significant bit, and the bits of a
  word are counted from its most significant bit downwards.

Bits after the last element are 0. Words are stored as in `packing`, the most significant byte
first.
"""

from typing import Literal, Self

import numpy as np
from pydantic import Field

from photomask.chip.formats import IntFormat
from photomask.chip.packing import flat_within
from photomask.chip.target import Target
from photomask.documents import Document
from photomask.errors import DataError


class StreamPacking(Document):
    """The place of every bit of every element of a stream."""

    format: IntFormat
    word_bits: int = Field(ge=1)
    first_bit: Literal["least_significant", "most_significant"]

    @classmethod
    def of(cls, format: IntFormat, target: Target) -> Self:
        """Returns the packing of a stream into the words of `target`.

        The target's `first_lane` says at which end of a word the stream begins.
        """
        return cls(format=format, word_bits=target.memory_word_bits, first_bit=target.first_lane)

    @property
    def word_bytes(self) -> int:
        """The number of bytes that hold one word."""
        return -(-self.word_bits // 8)

    def words(self, elements: int) -> int:
        """Returns how many words hold `elements`."""
        return -(-elements * self.format.bits // self.word_bits)

    def bits_per_element(self, elements: int) -> float:
        """Returns how many bits one of `elements` takes, unused bits of the last word included."""
        return self.words(elements) * self.word_bits / max(1, elements)


def pack_stream(values: np.ndarray, packing: StreamPacking) -> np.ndarray:
    """Packs integers into a stream.

    Args:
        values: integers of any shape; they are packed in C order.
        packing: where each bit goes.

    Returns:
        uint8 [words, word_bytes], most significant byte first.

    Raises:
        DataError: a value is outside the format.
    """
    format = packing.format
    flat = flat_within(values, format)
    size = -(-format.bits // 8)
    lowest = flat.astype("<i8").view(np.uint8).reshape(flat.size, 8)[:, :size]
    bits = np.unpackbits(lowest, axis=1, bitorder="little")[:, : format.bits]
    upwards = packing.first_bit == "least_significant"
    stream = (bits if upwards else bits[:, ::-1]).reshape(-1)
    words = np.zeros((packing.words(flat.size), packing.word_bits), dtype=np.uint8)
    words.reshape(-1)[: stream.size] = stream
    whole = np.zeros((len(words), 8 * packing.word_bytes), dtype=np.uint8)
    whole[:, whole.shape[1] - packing.word_bits :] = words[:, ::-1] if upwards else words
    return np.packbits(whole, axis=1)


def unpack_stream(words: np.ndarray, packing: StreamPacking, elements: int) -> np.ndarray:
    """Reads integers back from a stream; this is the inverse of `pack_stream`.

    Args:
        words: uint8 [words, word_bytes].
        packing: where each bit lies.
        elements: how many to read.

    Returns:
        int64 [elements].

    Raises:
        DataError: there are fewer or more words than the elements take, a word has more bits than
            `word_bits`, or bits after the last element are not 0.
    """
    expected = (packing.words(elements), packing.word_bytes)
    if words.shape != expected or words.dtype != np.uint8:
        raise DataError(
            f"a stream of {elements} elements of {packing.format} is uint8 {list(expected)}, got "
            f"{words.dtype} {list(words.shape)}"
        )
    whole = np.unpackbits(words, axis=1)
    spare = whole.shape[1] - packing.word_bits
    upwards = packing.first_bit == "least_significant"
    used = whole[:, spare:][:, ::-1] if upwards else whole[:, spare:]
    stream = used.reshape(-1)
    format, count = packing.format, elements * packing.format.bits
    if whole[:, :spare].any() or stream[count:].any():
        raise DataError(
            f"a stream of {elements} elements of {format} has bits behind its last element, or "
            f"words of more than {packing.word_bits} bits"
        )
    bits = stream[:count].reshape(elements, format.bits)
    raw = np.zeros((elements, 8), dtype=np.uint8)
    packed = np.packbits(bits if upwards else bits[:, ::-1], axis=1, bitorder="little")
    raw[:, : packed.shape[1]] = packed
    values = raw.view("<i8").reshape(elements).astype(np.int64)
    if format.signed and format.bits < 64:
        values = (values << (64 - format.bits)) >> (64 - format.bits)
    return values


def check_stream(words: np.ndarray, packing: StreamPacking, expected: np.ndarray) -> None:
    """Reads a stream back and compares it with the tensor that it should hold.

    Args:
        words: uint8 [words, word_bytes].
        packing: where each bit lies.
        expected: integers in the order of the stream.

    Raises:
        DataError: an element differs, or the words cannot be read as such a stream; the message
            says where.
    """
    flat = expected.reshape(-1)
    found = unpack_stream(words, packing, flat.size)
    if (wrong := np.flatnonzero(found != flat)).size:
        at = int(wrong[0])
        word, bit = divmod(at * packing.format.bits, packing.word_bits)
        raise DataError(
            f"{wrong.size} of {flat.size} elements differ, first element {at}, which begins at "
            f"bit {bit} of the stream in word {word}: found {found[at]}, expected {flat[at]}"
        )

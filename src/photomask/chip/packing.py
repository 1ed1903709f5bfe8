"""The packing of integers into memory words: widths, lanes, and words of one element.

Words are stored as bytes, the most significant byte first: `uint8 [words, ceil(word_bits / 8)]`.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from photomask.chip.formats import IntFormat
from photomask.chip.target import Target
from photomask.documents import Document
from photomask.errors import DataError

LIMB_BITS = 64


class Packing(Document):
    """The place of every bit of every element.

    An element that is not wider than a word takes one lane: `lanes = word_bits // bits`. Elements
    fill the lanes of word 0, then those of word 1, and so on. If `first_lane` is
    "least_significant", lane `l` occupies the bits `[l*bits, (l+1)*bits)` of its word. If it is
    "most_significant", lane 0 ends at the word's most significant bit, and the next lanes follow
    downwards. An element that is wider than a word takes `ceil(bits / word_bits)` words, the least
    significant first. Bits that no element takes are 0.
    """

    format: IntFormat
    word_bits: int = Field(ge=1)
    first_lane: Literal["least_significant", "most_significant"]

    @classmethod
    def of(cls, format: IntFormat, target: Target) -> "Packing":
        """Returns how `target` stores integers of `format`."""
        return cls(format=format, word_bits=target.memory_word_bits, first_lane=target.first_lane)

    @property
    def lanes(self) -> int:
        """The number of elements that share a word; 1 if an element takes one or more words."""
        return max(1, self.word_bits // self.format.bits)

    @property
    def words_per_element(self) -> int:
        """The number of words of one element; 1 unless the element is wider than a word."""
        return -(-self.format.bits // self.word_bits)

    @property
    def word_bytes(self) -> int:
        """The number of bytes that hold one word."""
        return -(-self.word_bits // 8)

    def words(self, elements: int) -> int:
        """Returns how many words hold `elements`; the last one is filled up with zeros."""
        return -(-elements // self.lanes) * self.words_per_element

    def lane_offset(self, lane: int) -> int:
        """Returns the position of the lane's least significant bit in its word."""
        if self.first_lane == "least_significant" or self.words_per_element > 1:
            return lane * self.format.bits
        return self.word_bits - (lane + 1) * self.format.bits


def flat_within(values: np.ndarray, format: IntFormat) -> np.ndarray:
    """Returns integers as int64 [elements] in C order, if a format holds all of them.

    Raises:
        DataError: a value is outside the format.
    """
    flat = np.ascontiguousarray(values, dtype=np.int64).reshape(-1)
    if flat.size and (flat.min() < format.low or flat.max() > format.high):
        raise DataError(
            f"cannot pack values from {flat.min()} to {flat.max()} as {format}, which holds "
            f"{format.low} to {format.high}"
        )
    return flat


def pack(values: np.ndarray, packing: Packing) -> np.ndarray:
    """Packs integers into words.

    Args:
        values: integers of any shape; they are packed in C order.
        packing: where each element goes.

    Returns:
        uint8 [words, word_bytes], most significant byte first.

    Raises:
        DataError: a value is outside the format.
    """
    flat = flat_within(values, packing.format)
    raw = flat.view(np.uint64) & _mask(packing.format.bits)
    return _bytes_of(_lanes_into_limbs(raw, packing), packing)


def unpack(words: np.ndarray, packing: Packing, elements: int) -> np.ndarray:
    """Reads integers back from words; this is the inverse of `pack`.

    Args:
        words: uint8 [words, word_bytes], at least as many as `elements` need.
        packing: where each element lies.
        elements: how many elements to read; the rest is padding.

    Returns:
        int64 [elements].
    """
    raw = _lanes_from_limbs(_limbs_of(words), packing)[:elements]
    format = packing.format
    if not format.signed:
        return raw.view(np.int64)
    spare = 64 - format.bits
    return (raw << np.uint64(spare)).view(np.int64) >> spare


def _lanes_into_limbs(raw: np.ndarray, packing: Packing) -> np.ndarray:
    """Returns words as uint64 limbs, the least significant limb first, from masked elements."""
    bits, span = packing.format.bits, packing.words_per_element
    if span > 1:
        words = np.empty((raw.size, span), dtype=np.uint64)
        for part in range(span):
            words[:, part] = raw >> np.uint64(part * packing.word_bits)
        return (words & _mask(packing.word_bits)).reshape(-1, 1)
    count = packing.words(raw.size)
    padded = np.zeros(count * packing.lanes, dtype=np.uint64)
    padded[: raw.size] = raw
    columns = padded.reshape(count, packing.lanes)
    limbs = np.zeros((count, -(-packing.word_bits // LIMB_BITS)), dtype=np.uint64)
    for lane in range(packing.lanes):
        limb, offset = divmod(packing.lane_offset(lane), LIMB_BITS)
        limbs[:, limb] |= columns[:, lane] << np.uint64(offset)
        if offset + bits > LIMB_BITS:
            limbs[:, limb + 1] |= columns[:, lane] >> np.uint64(LIMB_BITS - offset)
    return limbs


def _lanes_from_limbs(limbs: np.ndarray, packing: Packing) -> np.ndarray:
    """Returns elements as masked uint64, including padding lanes."""
    bits, span = packing.format.bits, packing.words_per_element
    if span > 1:
        parts = limbs[: len(limbs) // span * span, 0].reshape(-1, span)
        raw = np.zeros(len(parts), dtype=np.uint64)
        for part in range(span):
            raw |= parts[:, part] << np.uint64(part * packing.word_bits)
        return raw & _mask(bits)
    columns = np.empty((len(limbs), packing.lanes), dtype=np.uint64)
    for lane in range(packing.lanes):
        limb, offset = divmod(packing.lane_offset(lane), LIMB_BITS)
        columns[:, lane] = limbs[:, limb] >> np.uint64(offset)
        if offset + bits > LIMB_BITS:
            columns[:, lane] |= limbs[:, limb + 1] << np.uint64(LIMB_BITS - offset)
    return (columns & _mask(bits)).reshape(-1)


def _bytes_of(limbs: np.ndarray, packing: Packing) -> np.ndarray:
    big_endian = np.ascontiguousarray(limbs[:, ::-1], dtype=">u8")
    whole = big_endian.view(np.uint8).reshape(len(limbs), 8 * limbs.shape[1])
    return np.ascontiguousarray(whole[:, whole.shape[1] - packing.word_bytes :])


def _limbs_of(words: np.ndarray) -> np.ndarray:
    count, size = words.shape
    whole = np.zeros((count, -(-size // 8) * 8), dtype=np.uint8)
    whole[:, whole.shape[1] - size :] = words
    limbs = whole.view(">u8").reshape(count, whole.shape[1] // 8)
    return np.ascontiguousarray(limbs[:, ::-1], dtype=np.uint64)


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.bit_stream import (
    StreamPacking,
    check_stream,
    pack_stream,
    unpack_stream,
)
from photomask.chip.forms.memory.word_text import parse_words, render_words
from photomask.chip.packing import Packing
from photomask.chip.target import PRESETS
from photomask.errors import DataError

FirstBit = Literal["least_significant", "most_significant"]
packings = st.builds(
    StreamPacking,
    format=st.builds(IntFormat, bits=st.integers(1, 63), signed=st.booleans()),
    word_bits=st.integers(1, 80),
    first_bit=st.sampled_from(["least_significant", "most_significant"]),
)


def stream(bits: int, first_bit: FirstBit, word_bits: int = 8) -> StreamPacking:
    return StreamPacking(
        format=IntFormat(bits=bits, signed=True), word_bits=word_bits, first_bit=first_bit
    )


def values_of(packing: StreamPacking, count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(packing.format.low, packing.format.high, count, endpoint=True)


def in_words(values: np.ndarray, packing: StreamPacking) -> list[int]:
    """The words as Python integers, by one big integer and the definition of the format."""
    bits, width = packing.format.bits, packing.word_bits
    raw = [int(value) % (1 << bits) for value in values]
    count = -(-len(raw) * bits // width)
    if packing.first_bit == "least_significant":
        whole = sum(value << (i * bits) for i, value in enumerate(raw))
        return [(whole >> (n * width)) % (1 << width) for n in range(count)]
    whole = sum(value << ((len(raw) - 1 - i) * bits) for i, value in enumerate(raw))
    whole <<= count * width - len(raw) * bits
    return [(whole >> ((count - 1 - n) * width)) % (1 << width) for n in range(count)]


@given(packings, st.integers(0, 40), st.integers(0, 999))
def test_a_stream_is_one_big_integer_and_reads_back(packing: StreamPacking, count: int, seed: int):
    values = values_of(packing, count, seed)
    words = pack_stream(values, packing)
    assert [int.from_bytes(word.tobytes(), "big") for word in words] == in_words(values, packing)
    assert words.shape == (packing.words(count), packing.word_bytes)
    assert np.array_equal(unpack_stream(words, packing, count), values)
    check_stream(words, packing, values)


@given(packings, st.integers(1, 40), st.integers(0, 999), st.data())
def test_every_flipped_bit_is_found(
    packing: StreamPacking, count: int, seed: int, data: st.DataObject
):
    values = values_of(packing, count, seed)
    words = pack_stream(values, packing)
    word = data.draw(st.integers(0, len(words) - 1))
    byte = data.draw(st.integers(0, packing.word_bytes - 1))
    words[word, byte] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DataError):
        check_stream(words, packing, values)


def test_five_weights_of_three_bits_decoded_by_hand():
    # 1, -2, 3, -4, 0 are 001, 110, 011, 100, 000.
    values = np.array([1, -2, 3, -4, 0])
    # From the least significant bit up: word 0 holds 001, 110 and the low 11 of 011: 11_110_001.
    # Word 1 holds the high 0 of 011, then 100 and 000: 0_000_100_0.
    words = pack_stream(values, stream(3, "least_significant"))
    assert [f"{word[0]:08b}" for word in words] == ["11110001", "00001000"]
    # From the most significant bit down: 001 110 01|1 100 000 0.
    words = pack_stream(values, stream(3, "most_significant"))
    assert [f"{word[0]:08b}" for word in words] == ["00111001", "11000000"]


@pytest.mark.parametrize(("bits", "lanes"), [(2, 2.0), (3, 3.2), (4, 4.0), (6, 6.4)])
def test_a_stream_takes_exactly_its_bits_where_lanes_waste_some(bits: int, lanes: float):
    format = IntFormat(bits=bits, signed=True)
    packing = StreamPacking.of(format, PRESETS["asic"])
    assert packing.bits_per_element(16 * 32) == bits
    words = Packing.of(format, PRESETS["asic"]).words(5 * 16 * 32)
    assert words * 32 / (5 * 16 * 32) == pytest.approx(lanes, rel=1e-3)


def test_a_stream_becomes_text_for_readmemh_and_back():
    packing = stream(6, "most_significant", word_bits=32)
    values = values_of(packing, 11, 0)
    text = render_words(pack_stream(values, packing), 32, "hex")
    assert text.count(b"\n") == 3
    assert np.array_equal(unpack_stream(parse_words(text, 32, "hex").words, packing, 11), values)


def test_what_does_not_fit_is_refused():
    packing = stream(3, "least_significant")
    with pytest.raises(DataError, match="-5 to 3 as int3, which holds -4 to 3"):
        pack_stream(np.array([3, -5]), packing)
    words = pack_stream(np.array([1, 2, 3]), packing)
    with pytest.raises(DataError, match=r"3 elements of int3 is uint8 \[2, 1\], got .*\[1, 1\]"):
        unpack_stream(words[:1], packing, 3)
    words[1, 0] |= 1 << 7
    with pytest.raises(DataError, match="bits behind its last element"):
        unpack_stream(words, packing, 3)
    with pytest.raises(DataError, match=r"first element 1, which begins at bit 3 .* word 0"):
        check_stream(pack_stream(np.array([1, 2, 3]), packing), packing, np.array([1, 0, 3]))

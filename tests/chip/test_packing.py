import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.forms.memory.plain import plain_words

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.word_text import parse_words, render_words
from photomask.chip.packing import Packing, pack, unpack
from photomask.errors import DataError

LANES = st.sampled_from(["least_significant", "most_significant"])


@st.composite
def images(draw: st.DrawFn) -> tuple[Packing, list[int]]:
    bits = draw(st.integers(1, 64))
    format = IntFormat(bits=bits, signed=bits == 64 or draw(st.booleans()))
    word_bits = draw(st.one_of(st.sampled_from([8, 16, 32, 64, 128, 1024]), st.integers(1, 200)))
    packing = Packing(format=format, word_bits=word_bits, first_lane=draw(LANES))
    element = st.integers(format.low, format.high)
    return packing, draw(st.lists(element, max_size=70))


@given(images(), st.sampled_from(["hex", "bin"]))
@settings(max_examples=150, deadline=None)
def test_words_are_those_of_the_plain_definition_and_read_back(image, base):
    packing, values = image
    words = pack(np.array(values, dtype=np.int64), packing)
    expected = plain_words(values, packing.format.bits, packing.word_bits, packing.first_lane)
    text = render_words(words, packing.word_bits, base).decode()
    digits = -(-packing.word_bits // 4) if base == "hex" else packing.word_bits
    letter = "x" if base == "hex" else "b"
    assert text.splitlines() == [f"{word:0{digits}{letter}}" for word in expected]
    assert len(expected) == packing.words(len(values))
    parsed = parse_words(text.encode(), packing.word_bits, base)
    assert parsed.unknown is None
    assert np.array_equal(parsed.words, words)
    assert unpack(parsed.words, packing, len(values)).tolist() == values


def test_four_bytes_lie_in_a_word_from_the_right_or_from_the_left():
    int8 = IntFormat(bits=8, signed=True)
    values = np.array([1, -2, 3, 4, 5])
    right = Packing(format=int8, word_bits=32, first_lane="least_significant")
    left = Packing(format=int8, word_bits=32, first_lane="most_significant")
    assert render_words(pack(values, right), 32, "hex") == b"0403fe01\n00000005\n"
    assert render_words(pack(values, left), 32, "hex") == b"01fe0304\n05000000\n"


def test_left_over_bits_are_zero_at_the_far_end_of_lane_0():
    int5 = IntFormat(bits=5, signed=True)
    values = np.full(6, -1)
    right = Packing(format=int5, word_bits=32, first_lane="least_significant")
    left = Packing(format=int5, word_bits=32, first_lane="most_significant")
    assert render_words(pack(values, right), 32, "hex") == b"3fffffff\n"
    assert render_words(pack(values, left), 32, "hex") == b"fffffffc\n"


@pytest.mark.parametrize("first_lane", ["least_significant", "most_significant"])
def test_a_wide_element_takes_words_from_its_least_significant_end(first_lane):
    packing = Packing(format=IntFormat(bits=20, signed=True), word_bits=8, first_lane=first_lane)
    assert packing.words(1) == 3
    assert render_words(pack(np.array([-2]), packing), 8, "hex") == b"fe\nff\n0f\n"


def test_a_value_outside_the_format_is_refused():
    packing = Packing(
        format=IntFormat(bits=4, signed=False), word_bits=8, first_lane="least_significant"
    )
    with pytest.raises(DataError, match=r"-1 to 3 as uint4, which holds 0 to 15"):
        pack(np.array([3, -1]), packing)


def test_an_empty_tensor_has_no_words():
    packing = Packing(
        format=IntFormat(bits=4, signed=False), word_bits=8, first_lane="least_significant"
    )
    words = pack(np.zeros((2, 0), dtype=np.int64), packing)
    assert render_words(words, 8, "hex") == b""
    assert unpack(parse_words(b"", 8, "hex").words, packing, 0).size == 0

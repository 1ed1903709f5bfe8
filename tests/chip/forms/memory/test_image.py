import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.element_order import ElementOrder
from photomask.chip.forms.memory.image import Encoding, decode, encode, entries_of
from photomask.chip.packing import Packing
from photomask.errors import DocumentError

NHWC = ElementOrder("NHWC", (0, 2, 3, 1))
PACKING = Packing(
    format=IntFormat(bits=5, signed=True), word_bits=16, first_lane="least_significant"
)
SHAPE = (1, 3, 2, 2)
TENSOR = np.arange(-6, 6).reshape(SHAPE)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_reads_back_in_memory_order(encoding):
    data = encode(TENSOR, NHWC, PACKING, encoding, "a title")
    image = decode(data, SHAPE, NHWC, PACKING, encoding)
    assert image.values.tolist() == NHWC.flatten(TENSOR).tolist()
    assert image.unknown is None
    assert image.entries == entries_of(encoding, PACKING, 12)


def test_decimal_files_hold_one_signed_element_a_line():
    data = encode(TENSOR, NHWC, PACKING, Encoding.DEC, "")
    assert data.decode().splitlines()[:4] == ["-6", "-2", "2", "-5"]


def test_npy_files_hold_the_tensor_in_its_own_axes_and_narrowest_dtype(tmp_path):
    (tmp_path / "x.npy").write_bytes(encode(TENSOR, NHWC, PACKING, Encoding.NPY, ""))
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == np.int8
    assert np.array_equal(array, TENSOR)


def test_packed_files_start_with_a_comment():
    data = encode(TENSOR, NHWC, PACKING, Encoding.HEX, "what it is")
    assert data.startswith(b"// what it is\n")


def test_unknown_elements_are_marked_one_by_one():
    image = decode(b"7x21\n" * 4, SHAPE, NHWC, PACKING, Encoding.HEX)
    assert image.unknown is not None
    assert image.unknown.tolist() == [False, True, True] * 4
    assert image.values[0] == 1
    image = decode(b"1\nx\nZ\n4\n", SHAPE, NHWC, PACKING, Encoding.DEC)
    assert image.unknown is not None
    assert image.unknown.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"1\n2.5\n", Encoding.DEC, "line 2 holds '2.5', expected a decimal integer"),
        (b"1\n9223372036854775808\n", Encoding.DEC, "line 2 holds '9223372036854775808'"),
        (b"\xff\n", Encoding.DEC, "line 1"),
        (b"", Encoding.NPY, "not a readable .npy file"),
        (b"PK\x03\x04", Encoding.NPY, "not a readable .npy file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'", Encoding.NPY, "not a readable .npy file"),
    ],
)
def test_a_file_that_is_something_else_is_a_document_error(data, encoding, message):
    with pytest.raises(DocumentError) as caught:
        decode(data, SHAPE, NHWC, PACKING, encoding)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(SHAPE, np.float32), "holds float32, expected integers"),
        (np.zeros((3, 2), np.int8), r"has the shape [3, 2], expected [1, 3, 2, 2]"),
        (np.full(SHAPE, 2**64 - 1, np.uint64), "18446744073709551615, beyond int64"),
        (np.array([None]), "holds Python objects, but numbers were expected"),
    ],
)
def test_an_array_that_is_something_else_is_a_document_error(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DocumentError) as caught:
        decode((tmp_path / "x.npy").read_bytes(), SHAPE, NHWC, PACKING, Encoding.NPY)
    assert message in str(caught.value)


@given(st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_an_altered_npy_file_is_an_image_or_a_document_error(at, byte):
    data = bytearray(encode(TENSOR, NHWC, PACKING, Encoding.NPY, ""))
    data[at % len(data)] = byte
    with contextlib.suppress(DocumentError):
        decode(bytes(data), SHAPE, NHWC, PACKING, Encoding.NPY)

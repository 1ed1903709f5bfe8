import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.forms.memory.word_text import parse_words
from photomask.errors import DocumentError


def words_of(text: str, word_bits: int = 16, base: str = "hex") -> list[str]:
    return [row.tobytes().hex() for row in parse_words(text.encode(), word_bits, base).words]


@pytest.mark.parametrize(
    "text",
    [
        "0001\nabcd\n",
        "0001\nabcd",
        "// title\n0001\nabcd\n",
        "  // 0x00000000\r\n0001\r\n// 0x00000001\r\nabcd\r\n",
        "0001 ABCD",
        "@0 0001\n@1\nabcd\n",
        "00_01 /* two\nlines */ ab_cd // last\n",
        "1\nabcd\n",
        "\n\n0001\n\nabcd\n\n",
        "000001\nabcd\n",
    ],
)
def test_everything_that_readmemh_takes_is_read(text):
    assert words_of(text) == ["0001", "abcd"]


def test_binary_words_are_read():
    assert words_of("// b\n000000000001\n1111_0000_1010\n", 12, "bin") == ["0001", "0f0a"]


@pytest.mark.parametrize(
    ("text", "words", "unknown"),
    [
        ("xxxx\n0001\n", ["0000", "0001"], ["ffff", "0000"]),
        ("x\n0001\n", ["0000", "0001"], ["ffff", "0000"]),
        ("1zX2\n0001\n", ["1002", "0001"], ["0ff0", "0000"]),
        ("1\n@3\n2\n", ["0001", "0000", "0000", "0002"], ["0000", "ffff", "ffff", "0000"]),
    ],
)
def test_unknown_digits_and_skipped_words_are_marked(text, words, unknown):
    parsed = parse_words(text.encode(), 16, "hex")
    assert [row.tobytes().hex() for row in parsed.words] == words
    assert parsed.unknown is not None
    assert [row.tobytes().hex() for row in parsed.unknown] == unknown


def test_unknown_binary_digits_are_marked():
    parsed = parse_words(b"01xz\n", 4, "bin")
    assert parsed.words.tolist() == [[4]]
    assert parsed.unknown is not None
    assert parsed.unknown.tolist() == [[3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"0001\nhello\n", "line 2 holds 'hello', expected a hexadecimal word of 4 digits"),
        (b"0001\n12345\n", "line 2 holds '12345', which has more than 16 bits"),
        (b"-001\n", "line 1 holds '-001'"),
        (b"0001\n\xff\xfe\n", "byte 5 is 0xff, which is not ASCII text"),
        (b"@zz\n", "line 1: '@zz' is not a hexadecimal address"),
        (b"1\n2\n@1\n3\n", "line 3: address @1 comes after word 2"),
        (b"@ffffffffff\n3\n", "address @ffffffffff comes after word 0"),
        (b"00 1\n", None),
        (b"_\n", "line 1 holds '_'"),
    ],
)
def test_garbage_is_an_error_that_names_the_line(text, message):
    if message is None:
        assert len(parse_words(text, 16, "hex").words) == 2
        return
    with pytest.raises(DocumentError) as caught:
        parse_words(text, 16, "hex")
    assert message in str(caught.value)


def test_a_word_wider_than_the_memory_within_its_digits_is_refused():
    assert len(parse_words(b"3f\n", 6, "hex").words) == 1
    for text in (b"40\n", b" 40"):
        with pytest.raises(DocumentError, match="more than 6 bits"):
            parse_words(text, 6, "hex")


@given(st.binary(max_size=60), st.integers(1, 70), st.sampled_from(["hex", "bin"]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_words_or_a_document_error(text, word_bits, base):
    try:
        parsed = parse_words(text, word_bits, base)
    except DocumentError:
        return
    assert parsed.words.dtype == np.uint8
    assert parsed.words.shape[1] == -(-word_bits // 8)


@given(st.text(alphabet="01abfxzXZ_ \n@/*g", max_size=40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_nearly_valid_text_is_words_or_a_document_error(text, word_bits):
    try:
        parsed = parse_words(text.encode(), word_bits, "hex")
    except DocumentError:
        return
    assert int(parsed.words.max(initial=0)) <= 255
    assert all(int.from_bytes(row.tobytes()) < 2**word_bits for row in parsed.words)


@pytest.mark.parametrize(
    ("text", "line"),
    [(b"0a\n0b\n/* no end", 3), (b"0a /*/\n0b\n", 1), (b"/* one */ 0a\n0b // two\n/*\n0c\n", 3)],
)
def test_a_comment_that_never_ends_is_refused_with_its_line(text: bytes, line: int):
    with pytest.raises(DocumentError, match=rf"line {line} begins a comment"):
        parse_words(text, 8, "hex")


def test_a_comment_that_ends_on_the_last_byte_is_left_out():
    assert parse_words(b"0a\n/* b // c\n**/", 8, "hex").words.tolist() == [[10]]

"""Memory words as text, as `$readmemh` and `$readmemb` read them and `$writememh` writes them."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from photomask.errors import DocumentError

Base = Literal["hex", "bin"]

OWN_LINE_COMMENT = re.compile(rb"(?m)^[ \t]*//[^\n]*(?:\n|\Z)")
COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
DIGITS = {"hex": set("0123456789abcdefxz"), "bin": set("01xz")}
MOST_WORDS = 1 << 24
BASE_NAMES = {"hex": "hexadecimal", "bin": "binary"}


@dataclass(frozen=True)
class WordList:
    """The words that were read from text."""

    words: np.ndarray
    """uint8 [words, word_bytes], the most significant byte first. Unknown digits are read as 0."""
    unknown: np.ndarray | None
    """An array of the same shape whose set bits were `x` or `z`. None if every bit is known."""


def digits_of(word_bits: int, base: Base) -> int:
    """Returns how many digits a word has in a base."""
    return word_bits if base == "bin" else -(-word_bits // 4)


def render_words(words: np.ndarray, word_bits: int, base: Base) -> bytes:
    """Returns one word per line, with all its digits, in lower case."""
    if not len(words):
        return b""
    if base == "bin":
        bits = np.unpackbits(words, axis=1)[:, words.shape[1] * 8 - word_bits :]
        lines = np.full((len(words), word_bits + 1), ord("\n"), dtype=np.uint8)
        lines[:, :-1] = bits + ord("0")
        return lines.tobytes()
    text = words.tobytes().hex("\n", words.shape[1]).encode() + b"\n"
    surplus = 2 * words.shape[1] - digits_of(word_bits, "hex")
    if surplus:
        text = np.frombuffer(text, np.uint8).reshape(len(words), -1)[:, surplus:].tobytes()
    return text


def parse_words(text: bytes, word_bits: int, base: Base, most: int | None = None) -> WordList:
    """Reads words in the way a Verilog simulator does.

    Comments, ascending `@address` lines, `_` between digits, words with fewer digits, upper case
    and the digits `x` and `z` are allowed. A word that an address skips is unknown.

    Args:
        text: the content of the file.
        word_bits: the width of a word in bits.
        base: the base of the digits.
        most: the number of words of the image. No address may point beyond it. None allows 2**24
            words.

    Raises:
        DocumentError: a line is not a word of `word_bits` bits, or a comment is never closed. The
            message names the line.
    """
    body = OWN_LINE_COMMENT.sub(b"", text.replace(b"\r\n", b"\n"))
    words = _parse_regular(body, word_bits, base)
    if words is not None:
        return WordList(words, None)
    lines = _normal_lines(text, word_bits, base, MOST_WORDS if most is None else most)
    known = "".join(lines).translate(str.maketrans("xz", "00"))
    words = _decode(known.encode(), len(lines), word_bits, base)
    if not any("x" in line or "z" in line for line in lines):
        return WordList(words, None)
    one = "f" if base == "hex" else "1"
    table = {ord(digit): "0" for digit in DIGITS[base]} | {ord("x"): one, ord("z"): one}
    marks = "".join(lines).translate(table)
    return WordList(words, _decode(marks.encode(), len(lines), word_bits, base))


def _parse_regular(body: bytes, word_bits: int, base: Base) -> np.ndarray | None:
    """Reads text that looks like the output of `render_words`, which is fast.

    Returns None if the text looks different.
    """
    width = digits_of(word_bits, base) + 1
    if body and not body.endswith(b"\n"):
        body += b"\n"
    if len(body) % width:
        return None
    lines = np.frombuffer(body, np.uint8).reshape(-1, width)
    if np.any(lines[:, -1] != ord("\n")):
        return None
    digits = lines[:, :-1]
    if base == "bin" and np.any((digits != ord("0")) & (digits != ord("1"))):
        return None
    try:
        words = _decode(digits.tobytes(), len(lines), word_bits, base)
    except ValueError:
        return None
    spare = words.shape[1] * 8 - word_bits
    if len(words) and spare and int(words[:, 0].max()) >> (8 - spare):
        return None
    return words


def _decode(digits: bytes, count: int, word_bits: int, base: Base) -> np.ndarray:
    """Returns the bytes of `count` words of full width with nothing between them."""
    word_bytes = -(-word_bits // 8)
    width = word_bytes * (2 if base == "hex" else 8)
    padded = np.full((count, width), ord("0"), dtype=np.uint8)
    lines = np.frombuffer(digits, np.uint8).reshape(count, digits_of(word_bits, base))
    padded[:, width - lines.shape[1] :] = lines
    if base == "bin":
        return np.packbits(padded - ord("0"), axis=1)
    decoded = bytes.fromhex(padded.tobytes().decode("latin-1"))
    if len(decoded) != count * word_bytes:
        raise ValueError("white space within a word")
    return np.frombuffer(decoded, np.uint8).reshape(count, word_bytes)


def _normal_lines(text: bytes, word_bits: int, base: Base, most: int) -> list[str]:
    """Returns every word in full width and lower case.

    Unknown words stand for those that an address skips.
    """
    try:
        plain = COMMENT.sub(_only_newlines, text.decode("ascii"))
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"byte {error.start} is {text[error.start]:#04x}, which is not ASCII text; expected "
            f"one {BASE_NAMES[base]} word of {word_bits} bits per line"
        ) from error
    width = digits_of(word_bits, base)
    words: list[str] = []
    for number, line in enumerate(plain.split("\n"), start=1):
        for token in line.split():
            if token.startswith("@"):
                words += ["x" * width] * (_address(token, number, len(words), most) - len(words))
            else:
                words.append(_full_word(token, number, word_bits, base))
    return words


def _only_newlines(comment: re.Match[str]) -> str:
    """Replaces a comment by its line breaks, so that the line numbers behind it stay right.

    A block comment that is never closed raises an error.
    """
    text = comment.group()
    if text.startswith("/*") and (len(text) < 4 or not text.endswith("*/")):
        line = comment.string.count("\n", 0, comment.start()) + 1
        raise DocumentError(
            f"line {line} begins a comment with '/*' that is never closed; add the missing '*/'"
        )
    return "\n" * text.count("\n") or " "


def _address(token: str, line: int, position: int, most: int) -> int:
    """Returns the word address behind `@`; the words that follow begin at this address."""
    try:
        address = int(token[1:], 16)
    except ValueError:
        raise DocumentError(f"line {line}: {token[:40]!r} is not a hexadecimal address") from None
    if not position <= address <= max(position, most):
        raise DocumentError(
            f"line {line}: address {token[:40]} comes after word {position}; addresses must "
            f"ascend, start at the image's first word (@0) and stay within its {most} words"
        )
    return address


def _full_word(token: str, line: int, word_bits: int, base: Base) -> str:
    digits = token.replace("_", "").lower().replace("?", "z")
    width = digits_of(word_bits, base)
    if not digits or not set(digits) <= DIGITS[base]:
        raise DocumentError(
            f"line {line} holds {token[:40]!r}, expected a {BASE_NAMES[base]} word of {width} "
            f"digits ({word_bits} bits)"
        )
    full = digits.rjust(width, digits[0] if digits[0] in "xz" else "0")
    excess, full = full[:-width], full[-width:]
    top_bits = word_bits - 4 * (width - 1) if base == "hex" else 1
    too_high = full[0] not in "xz" and int(full[0], 16) >> top_bits
    if excess.strip("0") or too_high:
        raise DocumentError(
            f"line {line} holds {token[:40]!r}, which has more than {word_bits} bits"
        )
    return full

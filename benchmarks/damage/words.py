"""Integers from packed words, decoded without the package."""

import re
from typing import Any

import numpy as np

from .specimen import AmbiguousError, Files


def decoded(files: Files, manifest: Any, record: Any) -> np.ndarray:
    """Returns the integers of a file of hexadecimal words in the tensor's own axes.

    Raises:
        AmbiguousError: it is no such file.
    """
    text = files[record["path"]].decode("ascii", "replace")
    words = [int(word, 16) for word in _words(text)]
    bits, signed = record["format"]["bits"], record["format"]["signed"]
    word_bits = manifest["words"]["word_bits"]
    lanes = max(1, word_bits // bits)
    parts = -(-bits // word_bits)
    values = []
    for place in range(0, len(words) - parts + 1, parts):
        value = sum(
            word << word_bits * part for part, word in enumerate(words[place : place + parts])
        )
        for lane in range(lanes):
            code = value >> lane * bits & (1 << bits) - 1
            values.append(code - (1 << bits) if signed and code >> bits - 1 else code)
    shape, axes = record["shape"], record["axes"]
    count = int(np.prod(shape, dtype=np.int64))
    if len(values) < count:
        raise AmbiguousError(f"{record['path']}: {len(values)} elements, expected {count}")
    flat = np.array(values[:count], np.int64)
    return flat.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))


def _words(text: str) -> list[str]:
    """Returns the words of a file for `$readmemh` whose addresses only repeat the place."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"//[^\n\r]*", " ", text)
    found: list[str] = []
    for word in text.split():
        if word.startswith("@"):
            if int(word[1:].replace("_", ""), 16) != len(found):
                raise AmbiguousError(f"address {word} is not that of the next word")
            continue
        if not re.fullmatch(r"[0-9a-fA-F_]+", word):
            raise AmbiguousError(f"{word!r} is no word")
        found.append(word.replace("_", ""))
    return found

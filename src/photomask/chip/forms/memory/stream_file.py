"""Writes and reads one stream of a compressed weight as one file."""

from pathlib import Path

import numpy as np

from photomask.chip.forms.memory.bit_stream import StreamPacking, pack_stream, unpack_stream
from photomask.chip.forms.memory.compressed import StreamImage
from photomask.chip.forms.memory.element_order import row_major
from photomask.chip.forms.memory.image import Encoding, decode, encode, most_bytes
from photomask.chip.forms.memory.word_text import Base, parse_words, render_words
from photomask.chip.packing import Packing
from photomask.chip.target import Target
from photomask.documents import read_bytes
from photomask.errors import DataError, DocumentError


def encode_stream(stream: np.ndarray, record: StreamImage, target: Target, step: str) -> bytes:
    """Returns a stream as the bytes of a file.

    Args:
        stream: integers [elements].
        record: the record of the file.
        target: the words of the memory.
        step: the name of the step that reads the weight, for the comment of a packed file.
    """
    if not record.encoding.packed:
        order, packing = row_major(stream.shape), Packing.of(record.format, target)
        return encode(stream, order, packing, record.encoding, "")
    packing = StreamPacking.of(record.format, target)
    title = (
        f"{record.stream} of the weight of step {step}: stream of {stream.size} {record.format}, "
        f"{record.words} words of {packing.word_bits} bits, first bit "
        f"{packing.first_bit.replace('_', ' ')}"
    )
    words = render_words(pack_stream(stream, packing), packing.word_bits, _base(record))
    return f"// {ascii(title)[1:-1]}\n".encode("ascii") + words


def decode_stream(path: Path, record: StreamImage, target: Target) -> np.ndarray:
    """Reads a stream from its file.

    Args:
        path: the path of the file.
        record: the record of the file.
        target: the words of the memory.

    Returns:
        int64 [elements].

    Raises:
        DocumentError: the file cannot be read, or does not hold such a stream.
    """
    plain = Packing.of(record.format, target)
    data = read_bytes(path, most_bytes(record.encoding, plain, record.elements))
    if not record.encoding.packed:
        shape = (record.elements,)
        image = decode(data, shape, row_major(shape), plain, record.encoding)
        if image.entries != record.elements or image.unknown is not None:
            raise DocumentError(
                f"the file holds {image.entries} entries, expected {record.elements} without "
                "unknown digits"
            )
        values = image.values
        if values.size and not record.format.low <= values.min() <= values.max() <= (
            record.format.high
        ):
            raise DocumentError(f"the file holds integers that are not {record.format}")
        return values
    packing = StreamPacking.of(record.format, target)
    found = parse_words(data, packing.word_bits, _base(record), packing.words(record.elements))
    if found.unknown is not None:
        raise DocumentError("the file holds unknown digits (x or z)")
    try:
        return unpack_stream(found.words, packing, record.elements)
    except DataError as error:
        raise DocumentError(str(error)) from error


def _base(record: StreamImage) -> Base:
    return "hex" if record.encoding is Encoding.HEX else "bin"

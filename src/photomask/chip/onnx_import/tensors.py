"""Constant tensors of an ONNX file: sizes are compared with the bytes there before any use."""

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from photomask.errors import DocumentError

MOST_BYTES = 1 << 30
"""Of a file with its external data."""
MOST_AXES = 16
_TYPED_FIELDS = {
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
}
"""All others of `KINDS` lie in `int32_data`."""
KINDS = {
    "FLOAT": 32,
    "DOUBLE": 64,
    "FLOAT16": 16,
    "BOOL": 8,
    "INT64": 64,
    "INT32": 32,
    "INT16": 16,
    "INT8": 8,
    "INT4": 4,
    "UINT64": 64,
    "UINT32": 32,
    "UINT16": 16,
    "UINT8": 8,
    "UINT4": 4,
}
"""Bits of an element by the name of its type."""


@dataclass
class TensorReader:
    """Decodes the tensors of one file.

    Attributes:
        where: the file, for errors.
        folder: that external data must lie in; None where there is no file.
        remaining: bytes of external data that may still be read.
    """

    where: str
    folder: Path | None
    remaining: int = MOST_BYTES

    def read(self, tensor: Any) -> tuple[np.ndarray, str]:
        """Returns the values of a `TensorProto` and the name of its element type.

        Raises:
            DocumentError: an unknown type, another number of bytes than its shape says, or
                external data outside the file's folder.
        """
        from onnx import TensorProto, numpy_helper

        what = f"{self.where}: tensor {shortened(tensor.name)!r}"
        kind = _name_of(TensorProto.DataType, tensor.data_type)
        if kind not in KINDS:
            raise DocumentError(f"{what} has elements of type {kind}, not {', '.join(KINDS)}")
        if len(tensor.dims) > MOST_AXES or any(size < 0 for size in tensor.dims):
            raise DocumentError(f"{what} has the shape {list(tensor.dims)[:MOST_AXES]}")
        if tensor.HasField("segment"):
            raise DocumentError(f"{what} is a segment of a tensor")
        elements = math.prod(tensor.dims)
        wanted = -(-elements * KINDS[kind] // 8)
        if tensor.data_location == TensorProto.EXTERNAL:
            content = self._external(tensor, wanted, what)
            copy = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
            return numpy_helper.to_array(copy), kind
        if tensor.external_data:
            raise DocumentError(f"{what} names external data, but is not external")
        found, unit = len(tensor.raw_data), "bytes"
        if not tensor.HasField("raw_data"):
            found, unit = len(getattr(tensor, _TYPED_FIELDS.get(kind, "int32_data"))), "numbers"
            wanted = -(-elements // 2) if KINDS[kind] == 4 else elements
        if found != wanted:
            raise DocumentError(
                f"{what} of shape {list(tensor.dims)} and type {kind} needs {wanted} {unit}, the "
                f"file has {found}"
            )
        return numpy_helper.to_array(tensor), kind

    def _external(self, tensor: Any, wanted: int, what: str) -> bytes:
        """Reads exactly `wanted` bytes of a file inside the model's own folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise DocumentError(f"{what}: a key of its external data is there twice")
        path = self._inside(entries.get("location", ""), what)
        numbers = {}
        for key in ("offset", "length"):
            text = entries.get(key, "0" if key == "offset" else str(wanted))
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                raise DocumentError(f"{what}: the {key} of its external data is {text[:40]!r}")
            numbers[key] = int(text)
        if numbers["length"] != wanted:
            raise DocumentError(
                f"{what} of shape {list(tensor.dims)} needs {wanted} bytes, its external data has "
                f"{numbers['length']}"
            )
        self.remaining -= wanted
        if self.remaining < 0:
            raise DocumentError(f"{what}: more than {MOST_BYTES} bytes of external data")
        try:
            # Without following a link or waiting for a pipe that took the file's place meanwhile.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with open(os.open(path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise DocumentError(f"{what}: its external data is not a plain file")
                if numbers["offset"] + wanted > status.st_size:
                    raise DocumentError(
                        f"{what}: its external data ends at byte {numbers['offset'] + wanted} of "
                        f"{path.name}, which has {status.st_size}"
                    )
                file.seek(numbers["offset"])
                return file.read(wanted)
        except OSError as error:
            raise DocumentError(f"{what}: cannot read its external data: {error}") from error

    def _inside(self, location: str, what: str) -> Path:
        """Returns the file that a location names, if it lies in the model's folder."""
        if self.folder is None:
            raise DocumentError(f"{what} has external data: import the model by its path")
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        if (
            not location
            or "\0" in location
            or posix.is_absolute()
            or windows.anchor
            or ".." in (*posix.parts, *windows.parts)
        ):
            raise DocumentError(
                f"{what}: external data {shortened(location)!r}; it must lie in the model's folder"
            )
        try:
            folder = self.folder.resolve(strict=True)
            path = (folder / location).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise DocumentError(f"{what}: cannot read its external data: {error}") from error
        if not path.is_relative_to(folder):
            raise DocumentError(
                f"{what}: external data {shortened(location)!r} leads out of the model's folder"
            )
        return path


def _name_of(enum: Any, number: int) -> str:
    return enum.Name(number) if number in enum.values() else str(number)


def shortened(text: str) -> str:
    """Returns a name of the file as an error, a terminal or a document may show it."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:100])
    return shown if len(text) <= 100 else f"{shown}…"

"""Reads constant tensors of an ONNX file, after comparing their shapes with the bytes there."""

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from photomask.errors import DocumentError

MOST_BYTES = 1 << 30
"""The most bytes of a file, and of its external data."""
MOST_AXES = 16
_TYPED_FIELDS = {
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
}
"""The fields that hold the numbers of a type; all other types of `KINDS` use `int32_data`."""
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
"""The bits of an element by the name of its type."""


@dataclass
class TensorReader:
    """Decodes the tensors of one file.

    Attributes:
        where: the name of the file, for errors.
        folder: the folder that must hold external data; None where there is no file.
        remaining: the number of bytes of external data that may still be read.
    """

    where: str
    folder: Path | None
    remaining: int = MOST_BYTES

    def read(self, tensor: Any) -> tuple[np.ndarray, str]:
        """Returns the values of a `TensorProto` and the name of its element type.

        Raises:
            DocumentError: the type is unknown, the number of bytes does not fit the shape, or the
                external data lies outside the file's folder.
        """
        from onnx import TensorProto, numpy_helper

        what = f"{self.where}: tensor {shortened(tensor.name)!r}"
        kind = _name_of(TensorProto.DataType, tensor.data_type)
        if kind not in KINDS:
            raise DocumentError(
                f"{what} has elements of type {kind}; supported are {', '.join(KINDS)}"
            )
        if len(tensor.dims) > MOST_AXES or any(size < 0 for size in tensor.dims):
            raise DocumentError(
                f"{what} has the shape {list(tensor.dims)[:MOST_AXES]}; expected at most "
                f"{MOST_AXES} axes of size 0 or more"
            )
        if tensor.HasField("segment"):
            raise DocumentError(f"{what} is a segment of a tensor, which is not supported")
        elements = math.prod(tensor.dims)
        wanted = -(-elements * KINDS[kind] // 8)
        if tensor.data_location == TensorProto.EXTERNAL:
            content = self._external(tensor, wanted, what)
            copy = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
            return numpy_helper.to_array(copy), kind
        if tensor.external_data:
            raise DocumentError(
                f"{what} names external data, but its data_location is not EXTERNAL; export the "
                "model again"
            )
        found, unit = len(tensor.raw_data), "bytes"
        if not tensor.HasField("raw_data"):
            found, unit = len(getattr(tensor, _TYPED_FIELDS.get(kind, "int32_data"))), "numbers"
            wanted = -(-elements // 2) if KINDS[kind] == 4 else elements
        if found != wanted:
            raise DocumentError(
                f"{what} of shape {list(tensor.dims)} and type {kind} needs {wanted} {unit}, but "
                f"the file has {found}"
            )
        return numpy_helper.to_array(tensor), kind

    def _external(self, tensor: Any, wanted: int, what: str) -> bytes:
        """Returns exactly `wanted` bytes of a file inside the model's folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise DocumentError(f"{what}: a key of its external data is there twice")
        path = self._inside(entries.get("location", ""), what)
        numbers = {}
        for key in ("offset", "length"):
            text = entries.get(key, "0" if key == "offset" else str(wanted))
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                raise DocumentError(
                    f"{what}: the {key} of its external data is {text[:40]!r}; expected an integer"
                )
            numbers[key] = int(text)
        if numbers["length"] != wanted:
            raise DocumentError(
                f"{what} of shape {list(tensor.dims)} needs {wanted} bytes, but its external data "
                f"has {numbers['length']}"
            )
        self.remaining -= wanted
        if self.remaining < 0:
            raise DocumentError(
                f"{what}: the file has more than {MOST_BYTES} bytes of external data, which is too "
                "large"
            )
        try:
            # The file may have been replaced by a link or a pipe since its path was checked.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with open(os.open(path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise DocumentError(f"{what}: its external data is not a regular file")
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
        """Returns the path that a location names, which must lie in the model's folder."""
        if self.folder is None:
            raise DocumentError(f"{what} has external data; import the model by its path")
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        if (
            not location
            or "\0" in location
            or posix.is_absolute()
            or windows.anchor
            or ".." in (*posix.parts, *windows.parts)
        ):
            raise DocumentError(
                f"{what}: its external data {shortened(location)!r} must lie in the model's folder"
            )
        try:
            folder = self.folder.resolve(strict=True)
            path = (folder / location).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise DocumentError(f"{what}: cannot read its external data: {error}") from error
        if not path.is_relative_to(folder):
            raise DocumentError(
                f"{what}: its external data {shortened(location)!r} lies outside the model's folder"
            )
        return path


def _name_of(enum: Any, number: int) -> str:
    return enum.Name(number) if number in enum.values() else str(number)


def shortened(text: str) -> str:
    """Returns a name from the file, shortened and printable, for errors and documents."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:100])
    return shown if len(text) <= 100 else f"{shown}…"

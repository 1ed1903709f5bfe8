"""Reads arrays and tensors from files safely: no pickles, and no array larger than its file.

The shape in a header must fit the size of the file. A shape of 2**40 elements in a file of 100
bytes is refused before memory is allocated.
"""

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from photomask.documents import TENSOR_BYTES, check_regular, opened
from photomask.errors import DataError, DocumentError

MALFORMED = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)
"""The errors that NumPy, zipfile and safetensors raise for files that they did not write."""

__all__ = [
    "array_from",
    "int64_array",
    "plain_array",
    "read_array",
    "read_arrays",
    "read_tensors",
    "tensor_file",
]


def read_array(path: Path, limit: int = TENSOR_BYTES) -> np.ndarray:
    """Returns the array in a `.npy` file.

    Args:
        path: the path of the file.
        limit: the largest size of the file, in bytes.

    Raises:
        DocumentError: the file is absent, not a regular file, too large, or not a plain array.
    """
    with opened(path, limit) as file:
        try:
            return array_from(file, os.fstat(file.fileno()).st_size)
        except DocumentError as error:
            raise DocumentError(f"{path} is not a plain .npy array: {error}") from error


def read_arrays(path: Path, limit: int = TENSOR_BYTES) -> dict[str, np.ndarray]:
    """Returns the arrays in a `.npz` file by name.

    Args:
        path: the path of the file.
        limit: the largest size of the file, and of all its arrays together when unpacked, in bytes.

    Raises:
        DocumentError: the file is absent, not a regular file, or too large, packed or unpacked. Or
            it holds something other than plain arrays.
    """
    with opened(path, limit) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                size = sum(member.file_size for member in members)
                if size > limit:
                    raise DocumentError(
                        f"unpacked it has {size:,} bytes, but at most {limit:,} are read"
                    )
                found = {}
                for member in members:
                    with archive.open(member) as part:
                        name = member.filename.removesuffix(".npy")
                        found[name] = array_from(part, member.file_size)
                return found
        except (DocumentError, *MALFORMED) as error:
            raise DocumentError(f"{path} is not a .npz file of plain arrays: {error}") from error


def array_from(file: Any, size: int) -> np.ndarray:
    """Returns one array from a file in NumPy's format.

    Args:
        file: a binary file, at its start.
        size: the size of the file in bytes. The array must take all of them.

    Raises:
        DocumentError: the file is not an array, it is a pickle, or its size does not fit the shape.
    """
    try:
        shape, is_fortran, dtype = _header(file)
        if dtype.hasobject:
            raise DocumentError("it holds Python objects, but numbers were expected")
        expected, found = math.prod(shape) * dtype.itemsize, size - file.tell()
        if found != expected:
            raise DocumentError(
                f"it holds {found:,} bytes of elements, but {dtype} {list(shape)} needs "
                f"{expected:,}"
            )
        content = bytearray(file.read(expected))
        flat = np.frombuffer(content, dtype, math.prod(shape))
        return flat.reshape(shape, order="F" if is_fortran else "C")
    except MALFORMED as error:
        raise DocumentError(f"it is not a readable .npy file: {error}") from error


def _header(file: BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise DocumentError(f"its format has version {version}, expected 1.0 or 2.0")


def plain_array(array: np.ndarray) -> np.ndarray:
    """Returns an array in the form that PyTorch takes: contiguous, writable, in native byte order.

    Floats of more than 64 bits become float64. All other elements keep their dtype.

    Raises:
        DataError: the elements are not booleans, integers or real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"the array holds {array.dtype}; expected numbers")
    is_long = array.dtype.kind == "f" and array.dtype.itemsize > 8
    dtype = np.dtype(np.float64) if is_long else array.dtype.newbyteorder("=")
    plain = np.asarray(array, dtype=dtype, order="C")
    return plain if plain.flags.writeable else plain.copy()


def int64_array(array: np.ndarray, where: str) -> np.ndarray:
    """Returns integers as int64, after a check that all of them fit.

    Args:
        array: an array of any integer dtype.
        where: the name of the array for the message.

    Raises:
        DataError: an integer does not fit int64, or the elements are not integers.
    """
    if array.dtype.kind not in "iu":
        raise DataError(f"{where} must be integers, got {array.dtype}")
    largest = np.iinfo(np.int64).max
    if array.dtype == np.uint64 and array.size and array.max() > largest:
        raise DataError(f"{where} holds {array.max()}, beyond int64, whose largest is {largest}")
    return array.astype(np.int64)


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns the tensors of a safetensors file. A tensor of another shape is not allocated.

    Args:
        path: the path of the file.
        shapes: the shapes of all tensors by name. The file must hold exactly these.

    Raises:
        DocumentError: the file is absent, not a regular file or damaged, or it holds other tensors.
    """
    with tensor_file(path, "np") as file:
        if odd := sorted(set(file.keys()) ^ set(shapes)):
            raise DocumentError(
                f"{path}: tensor {odd[0]!r} is in only one of the file and its description; both "
                "must name the same tensors"
            )
        for name, shape in shapes.items():
            found = tuple(file.get_slice(name).get_shape())
            if found != shape:
                raise DocumentError(f"{path}: tensor {name!r} has shape {found}, expected {shape}")
        return {name: file.get_tensor(name) for name in shapes}


@contextmanager
def tensor_file(
    path: Path, framework: Literal["np", "pt"], limit: int = TENSOR_BYTES
) -> Iterator[Any]:
    """Opens a safetensors file.

    Args:
        path: the path of the file.
        framework: `np` or `pt`, which says whether `get_tensor` returns arrays of NumPy or tensors
            of PyTorch.
        limit: the largest size of the file, in bytes.

    Raises:
        DocumentError: the file is absent, not a regular file, too large, or damaged.
    """
    check_regular(path, limit)
    try:
        with safe_open(path, framework) as file:
            yield file
    except MALFORMED as error:
        raise DocumentError(f"cannot read {path}: {error}") from error

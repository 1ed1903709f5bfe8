"""JSON and safetensors read with the standard library and NumPy alone."""

import hashlib
import json
import struct
from typing import Any

import numpy as np

from .specimen import AmbiguousError

DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""The element types that the package writes."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AmbiguousError("a key is there twice")
    return found


def parse(text: bytes) -> Any:
    """Reads JSON; refuses a key that is there twice.

    Raises:
        AmbiguousError: a key is there twice, or it is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise AmbiguousError(f"no JSON: {error}") from error


def tensors_of(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a safetensors file: its tensors and its metadata.

    Raises:
        AmbiguousError: it is no such file.
    """
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = parse(content[8 : 8 + size])
        data = content[8 + size :]
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, record in header.items():
            start, end = record["data_offsets"]
            flat = np.frombuffer(data[start:end], DTYPES[record["dtype"]])
            tensors[name] = flat.reshape(record["shape"])
        return tensors, metadata
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise AmbiguousError(f"no safetensors file: {error!r}") from error


def rebuilt(content: bytes, metadata: dict[str, str]) -> bytes:
    """Returns a safetensors file with other metadata."""
    (size,) = struct.unpack("<Q", content[:8])
    header = parse(content[8 : 8 + size]) | {"__metadata__": metadata}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def marks(tensors: dict[str, Any]) -> dict[str, list[Any]]:
    """Returns dtype, shape and hash of the elements of each array."""
    return {
        name: [str(array.dtype), list(array.shape), sha256(np.ascontiguousarray(array).tobytes())]
        for name, array in tensors.items()
    }


def sha256(content: bytes) -> str:
    """Returns the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def difference(said: Any, held: Any, where: str = "") -> str | None:
    """Says where what was loaded is not what the bytes say; None where it is.

    Fields that the bytes leave out are not compared: they say nothing about them.
    """
    if isinstance(said, dict) and isinstance(held, dict):
        for key, value in said.items():
            if key not in held:
                return f"{where}/{key}: not loaded"
            if found := difference(value, held[key], f"{where}/{key}"):
                return found
        return None
    if isinstance(said, list | tuple) and isinstance(held, list | tuple):
        if len(said) != len(held):
            return f"{where}: {len(said)} items, loaded {len(held)}"
        for place, (value, other) in enumerate(zip(said, held, strict=True)):
            if found := difference(value, other, f"{where}/{place}"):
                return found
        return None
    if type(said) is int and isinstance(held, float):
        said = float(said)  # the number that is closest to the decimal one
    if isinstance(said, bool) != isinstance(held, bool) or said != held:
        return f"{where}: {str(said)[:80]!r}, loaded {str(held)[:80]!r}"
    return None

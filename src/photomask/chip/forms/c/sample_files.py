"""Reads and writes the files of samples: `inputs.bin`, `golden.bin`, and a project's output."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from photomask.chip.forms.c.tensors import Tensor
from photomask.chip.forms.c.text import numpy_type
from photomask.documents import TENSOR_BYTES, read_bytes
from photomask.errors import DocumentError

INPUTS_FILE = "inputs.bin"
GOLDEN_FILE = "golden.bin"


def packed(
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> bytes:
    """Returns the bytes of all samples, one after the other, in C's types and orders.

    Args:
        tensors: the C type and order of every edge.
        names: the edges in the file, in order.
        samples: int64 codes by edge, batch axis 1.
    """
    return b"".join(
        tensors[name].laid_out(sample[name]).tobytes() for sample in samples for name in names
    )


def unpacked(
    tensors: Mapping[str, Tensor], names: Sequence[str], path: Path
) -> list[dict[str, np.ndarray]]:
    """Reads the bytes that `packed` returned from a file, and returns int64 codes by edge.

    Raises:
        DocumentError: the file is missing, or does not hold a whole number of samples.
    """
    content = read_bytes(path, TENSOR_BYTES)
    size = sum(tensors[name].bytes for name in names)
    if not content or len(content) % size:
        raise DocumentError(
            f"{path} holds {len(content)} bytes, not a multiple of the {size} bytes of a sample; "
            "it is truncated or belongs to another program"
        )
    samples = []
    offset = 0
    for _ in range(len(content) // size):
        sample: dict[str, np.ndarray] = {}
        for name in names:
            tensor = tensors[name]
            kind = numpy_type(tensor.ctype)
            sample[name] = tensor.own_axes(np.frombuffer(content, kind, tensor.elements, offset))
            offset += tensor.bytes
        samples.append(sample)
    return samples

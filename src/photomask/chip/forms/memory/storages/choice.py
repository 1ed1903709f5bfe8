"""Chooses the storage of a weight; the choice follows from the weight's integers alone."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.bit_stream import StreamPacking
from photomask.chip.forms.memory.storages.base import Storage, Streams
from photomask.chip.forms.memory.storages.bitmap import BitmapStorage
from photomask.chip.forms.memory.storages.n_of_m import NofMStorage
from photomask.chip.forms.memory.storages.occupied_blocks import BlockStorage
from photomask.chip.forms.memory.storages.run_length import RunLengthStorage
from photomask.chip.packing import Packing
from photomask.chip.target import Target

STORAGES: Mapping[str, type[Storage]] = {
    "n:m": NofMStorage,
    "bitmap": BitmapStorage,
    "run-length": RunLengthStorage,
    "blocks": BlockStorage,
}
"""Every storage by its `kind`."""

AnyStorage = Annotated[
    NofMStorage | BitmapStorage | RunLengthStorage | BlockStorage, Field(discriminator="kind")
]


def stored_bits(
    storage: Storage, streams: Streams, format: IntFormat, shape: tuple[int, ...], target: Target
) -> int:
    """Returns how many bits of memory the streams of a weight take, unused bits included."""
    formats = storage.formats(format, shape)
    words = (
        StreamPacking.of(formats[name], target).words(stream.size)
        for name, stream in streams.items()
    )
    return sum(words) * target.memory_word_bits


def dense_bits(format: IntFormat, elements: int, target: Target) -> int:
    """Returns how many bits of memory a dense image takes, unused bits included."""
    return Packing.of(format, target).words(elements) * target.memory_word_bits


def smallest(
    weight: np.ndarray, zero: np.ndarray, format: IntFormat, target: Target, kinds: Sequence[str]
) -> AnyStorage | None:
    """Chooses the storage that takes the fewest bits of memory for a weight.

    Args:
        weight: integers [outputs, inputs, *kernel].
        zero: the integer that is zero, [outputs].
        format: the format of the weight.
        target: the words of the memory.
        kinds: the storages to choose from. The first of two that take equally many bits is chosen.

    Returns:
        The storage, or None if no storage takes fewer bits than the dense image, or a zero is
        outside the format and can therefore not be stored.
    """
    if int(zero.min()) < format.low or int(zero.max()) > format.high:
        return None
    best, fewest = None, dense_bits(format, weight.size, target)
    for kind in kinds:
        storage = STORAGES[kind].fitted(weight, zero, format)
        if storage is None:
            continue
        streams = storage.compress(weight, zero)
        bits = stored_bits(storage, streams, format, weight.shape, target)
        if bits < fewest:
            best, fewest = storage, bits
    return best  # type: ignore[return-value]

"""The compressed weights of an export: which storage each has, and its files."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from photomask.chip.formats import IntFormat
from photomask.chip.forms.file_records import FileRecord
from photomask.chip.forms.memory.bit_stream import StreamPacking
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.storages import Streams
from photomask.chip.forms.memory.storages.choice import (
    AnyStorage,
    dense_bits,
    smallest,
    stored_bits,
)
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.target import Target
from photomask.documents import Document

WEIGHT, ZERO_POINT = "weight", "weight_zero_point"
"""The roles of a weight, and of the integers that are zero in it."""


class StreamImage(FileRecord):
    """A file with one stream of a compressed weight."""

    encoding: Encoding
    stream: str
    """What the stream holds: values, indices, bitmap, runs or positions."""
    format: IntFormat
    elements: int = Field(ge=0)
    words: int | None
    """How many words the file holds: its lines without the comment (hex, bin)."""


class CompressedWeight(Document):
    """A weight that is stored without its zeros, as one step reads it."""

    step: str
    role: str
    tensor: str
    zero_point: str | None
    """The tensor with the integer that is zero in each output; None if it is 0 in all."""
    node: str
    format: IntFormat
    shape: tuple[int, ...]
    storage: AnyStorage
    dense_bits: int
    """The bits of memory that the dense image of the weight would take."""
    stored_bits: int
    """The bits of memory that all streams take, unused bits of their last words included."""
    streams: tuple[StreamImage, ...]

    @model_validator(mode="after")
    def _has_outputs_and_inputs(self) -> Self:
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise ValueError(f"the shape {self.shape} is not [outputs, inputs, *kernel]")
        return self

    def zero(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the integer that is zero, [outputs], from the tensors of the program."""
        return zero_of(tensors, self.zero_point, self.shape[0])


def zero_of(tensors: Mapping[str, np.ndarray], zero_point: str | None, outputs: int) -> np.ndarray:
    """Returns the integer that is zero in each output of a weight, [outputs]."""
    return np.zeros(outputs, dtype=np.int64) if zero_point is None else tensors[zero_point]


def chosen_storages(
    program: IntegerProgram, kinds: Sequence[str]
) -> dict[tuple[str, str | None], AnyStorage]:
    """Chooses the storage of every weight that has one which takes fewer bits than its image.

    Args:
        program: the program that is exported.
        kinds: the storages to choose from.

    Returns:
        The storages by the names of the weight and of its zero points.
    """
    found: dict[tuple[str, str | None], AnyStorage] = {}
    for weight, zero_point in dict.fromkeys(filter(None, map(weight_of_step, program.steps))):
        tensor = program.tensors[weight]
        zero = zero_of(program.tensors, zero_point, len(tensor))
        storage = smallest(tensor, zero, program.formats[weight], program.target, kinds)
        if storage is not None:
            found[weight, zero_point] = storage
    return found


def weight_of_step(step: Step) -> tuple[str, str | None] | None:
    """Returns the names of a step's weight and of its zero points, or None without a weight."""
    weight = step.tensors.get(WEIGHT)
    return None if weight is None else (weight, step.tensors.get(ZERO_POINT))


def compressed_weight(
    program: IntegerProgram,
    step: Step,
    storage: AnyStorage,
    stem: str,
    encodings: Sequence[Encoding],
) -> CompressedWeight:
    """Describes the weight of a step in a storage, with empty hashes and file sizes.

    Args:
        program: the program that is exported.
        step: the step that reads the weight.
        storage: the storage of the weight.
        stem: the beginning of the names of its files.
        encodings: the encodings that each stream is written in.
    """
    weight, zero_point = step.tensors[WEIGHT], step.tensors.get(ZERO_POINT)
    tensor, format = program.tensors[weight], program.formats[weight]
    target = program.target
    streams = storage.compress(tensor, zero_of(program.tensors, zero_point, len(tensor)))
    formats = storage.formats(format, tensor.shape)
    return CompressedWeight(
        step=step.name,
        role=WEIGHT,
        tensor=weight,
        zero_point=zero_point,
        node=step.node,
        format=format,
        shape=tensor.shape,
        storage=storage,
        dense_bits=dense_bits(format, tensor.size, target),
        stored_bits=stored_bits(storage, streams, format, tensor.shape, target),
        streams=tuple(_images(stem, streams, formats, target, encodings)),
    )


def _images(
    stem: str,
    streams: Streams,
    formats: Mapping[str, IntFormat],
    target: Target,
    encodings: Sequence[Encoding],
) -> list[StreamImage]:
    return [
        StreamImage(
            path=f"{stem}.{name}.{encoding}",
            encoding=encoding,
            stream=name,
            format=formats[name],
            elements=stream.size,
            words=StreamPacking.of(formats[name], target).words(stream.size)
            if encoding.packed
            else None,
        )
        for name, stream in streams.items()
        for encoding in encodings
    ]

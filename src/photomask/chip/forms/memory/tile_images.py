"""Writes the weights of each tile as a file, in the order in which an accelerator reads tiles."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from photomask.chip.cost.tiling import Tile, Tiling
from photomask.chip.forms.memory.element_order import tensor_order
from photomask.chip.forms.memory.image import Encoding, decode, encode, entries_of
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step
from photomask.errors import DataError, DocumentError, UsageError


@dataclass(frozen=True)
class WeightBlock:
    """The part of a step's weight that a tile needs, as a start and a stop for each axis.

    Tiles that differ only in their output positions share a block.
    """

    channels_out: tuple[int, int]
    """Start and stop of the output channels, counted over all groups together."""
    channels_in: tuple[int, int]
    """Start and stop of the input channels, counted within the group."""
    kernel: tuple[tuple[int, int], ...]
    """Start and stop for each spatial axis."""

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that cut the block out of a weight of shape [outputs, inputs, *kernel]."""
        return tuple(slice(*ends) for ends in (self.channels_out, self.channels_in, *self.kernel))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the block, in the weight's own axes."""
        return tuple(part.stop - part.start for part in self.slices)

    @property
    def file_stem(self) -> str:
        """A file name that says where the block lies, such as `o0-15_i0-7_k0-2x0-2`.

        Both ends are included.
        """
        names = [f"o{_span(self.channels_out)}", f"i{_span(self.channels_in)}"]
        if self.kernel:
            names.append("k" + "x".join(map(_span, self.kernel)))
        return "_".join(names)


def _span(ends: tuple[int, int]) -> str:
    return f"{ends[0]}-{ends[1] - 1}"


def weight_blocks(program: IntegerProgram, tiling: Tiling) -> list[WeightBlock]:
    """Returns the distinct blocks of a step's weight, in the order of their first use.

    Raises:
        UsageError: the step has no constant weights.
    """
    step = _step_of(program, tiling)
    rank = program.tensors[step.tensors["weight"]].ndim
    groups = program.tensors[step.tensors["weight"]].shape[0] // tiling.whole.channels_out
    positions = tiling.model_copy(
        update={
            # Different output positions read the same weights, so one position is enough.
            "whole": tiling.whole.model_copy(update={"rows": 1, "columns": 1}),
            "groups": groups,
        }
    )
    found = (_block(tile, tiling.whole.channels_out, rank) for tile in positions.tiles())
    return list(dict.fromkeys(found))


def _step_of(program: IntegerProgram, tiling: Tiling) -> Step:
    step = program.links.steps.get(tiling.step)
    if step is None or "weight" not in step.tensors:
        raise UsageError(
            f"{tiling.step!r} is not a step of the program with constant weights; tile a "
            "convolution or a linear step"
        )
    return step


def _block(tile: Tile, channels_out: int, rank: int) -> WeightBlock:
    first = tile.group * channels_out
    kernel = (tile.kernel_rows, tile.kernel_columns)[4 - rank :]
    return WeightBlock(
        (first + tile.channels_out.start, first + tile.channels_out.stop),
        (tile.channels_in.start, tile.channels_in.stop),
        tuple((axis.start, axis.stop) for axis in kernel),
    )


def tile_images(
    program: IntegerProgram, tiling: Tiling, encoding: Encoding = Encoding.HEX
) -> dict[WeightBlock, bytes]:
    """Cuts a step's weight into the files of its tiles, in the order of their first use.

    Element order and packing are the same as in the memory image of the whole weight. Each file
    starts with a new word.

    Args:
        program: the program that holds the weight.
        tiling: the tiles that `tile` cut the step into.
        encoding: the encoding of the files.

    Raises:
        UsageError: the step has no constant weights.
    """
    step = _step_of(program, tiling)
    name = step.tensors["weight"]
    tensor, packing = program.tensors[name], Packing.of(program.formats[name], program.target)
    order = tensor_order(program, step, "weight")
    title = ascii(step.name)[1:-1]
    return {
        block: encode(tensor[block.slices], order, packing, encoding, f"{title} {block.file_stem}")
        for block in weight_blocks(program, tiling)
    }


def check_tile_images(
    program: IntegerProgram, tiling: Tiling, images: Mapping[WeightBlock, bytes], encoding: Encoding
) -> None:
    """Reads the files of a step's tiles back and compares them with its weight.

    Raises:
        DocumentError: a file cannot be read as integers, or has too few or too many words.
        DataError: a file is missing, or a weight differs; the message names it.
        UsageError: the step has no constant weights.
    """
    step = _step_of(program, tiling)
    name = step.tensors["weight"]
    tensor, packing = program.tensors[name], Packing.of(program.formats[name], program.target)
    order = tensor_order(program, step, "weight")
    for block in weight_blocks(program, tiling):
        where = f"step {step.name!r}, tile {block.file_stem}"
        if block not in images:
            raise DataError(f"{where}: the image is missing")
        image = decode(images[block], block.shape, order, packing, encoding)
        entries = entries_of(encoding, packing, math.prod(block.shape))
        if image.entries != entries:
            raise DocumentError(
                f"{where}: the image holds {image.entries} entries, expected {entries}"
            )
        if image.unknown is not None:
            raise DataError(f"{where}: the image holds unknown digits (x or z)")
        expected = order.flatten(tensor[block.slices])
        if (wrong := np.flatnonzero(image.values != expected)).size:
            at = int(wrong[0])
            raise DataError(
                f"{where}: element {at} in memory order is {image.values[at]}, expected "
                f"{expected[at]}"
            )

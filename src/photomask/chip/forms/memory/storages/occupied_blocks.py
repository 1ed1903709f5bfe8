"""Occupied blocks: only blocks that hold a weight other than zero are stored, with their positions.

A block has some consecutive outputs and some consecutive inputs at one kernel position. Blocks are
numbered with the blocks of outputs as the slowest axis, then the kernel positions, then the blocks
of inputs. The stream `positions` holds the numbers of the occupied blocks in ascending order. The
stream `values` holds their weights, block after block; the outputs are the slower axis within a
block. A block that reaches beyond the last output or input is filled up with the integer 0.
"""

import math
from typing import Literal, Self

import numpy as np
from pydantic import Field

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.storages.base import (
    Storage,
    Streams,
    index_format,
    require_length,
    rows_of,
    weight_of,
    zero_rows,
)
from photomask.chip.sparsity import Blocks
from photomask.errors import DataError

SIDES = (4, 8, 16, 32)
"""The numbers of outputs and of inputs of a block that `fitted` looks at."""


class BlockStorage(Storage):
    """The storage of a weight that is zero in whole blocks."""

    kind: Literal["blocks"] = "blocks"
    blocks: Blocks = Field()

    @classmethod
    def fitted(cls, weight: np.ndarray, zero: np.ndarray, format: IntFormat) -> Self | None:
        """Returns the storage with the size of a block that takes the fewest bits."""
        centred = weight - zero.reshape(-1, *(1,) * (weight.ndim - 1))
        best, fewest = None, weight.size * format.bits
        for outputs in SIDES:
            for inputs in SIDES:
                found = cls(blocks=Blocks(outputs=outputs, inputs=inputs))
                occupied = found.blocks.occupied(centred)
                bits = outputs * inputs * format.bits + index_format(occupied.size).bits
                if (size := int(occupied.sum()) * bits) < fewest:
                    best, fewest = found, size
        return best

    def formats(self, format: IntFormat, shape: tuple[int, ...]) -> dict[str, IntFormat]:
        """Returns the width of a block's number for `positions`, and the weight's for `values`."""
        return {"positions": index_format(math.prod(self._grid(shape))), "values": format}

    def compress(self, weight: np.ndarray, zero: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the numbers of the occupied blocks, and their weights."""
        rows = rows_of(weight)
        occupied = (self._cut(rows - zero.reshape(-1, 1, 1)) != 0).any(axis=(1, 2))
        return {
            "positions": np.flatnonzero(occupied),
            "values": self._cut(rows)[occupied].reshape(-1),
        }

    def restore(self, streams: Streams, shape: tuple[int, ...], zero: np.ndarray) -> np.ndarray:
        """Puts every block at its position.

        Raises:
            DataError: a stream has too few or too many elements, the positions do not ascend or lie
                behind the last block, or a block is filled up with something else than 0.
        """
        positions, side = streams["positions"], self.blocks.outputs * self.blocks.inputs
        values = require_length(streams, "values", positions.size * side)
        grid = self._grid(shape)
        descends = np.diff(positions, prepend=-1) <= 0
        if (wrong := np.flatnonzero(descends | (positions >= math.prod(grid)))).size:
            at = int(wrong[0])
            raise DataError(
                f"element {at} of the stream 'positions' is {positions[at]}; positions must "
                f"ascend and be less than {math.prod(grid)}"
            )
        blocks = self._cut(zero_rows(shape, zero))
        blocks[positions] = values.reshape(-1, self.blocks.outputs, self.blocks.inputs)
        whole = blocks.reshape(*grid, self.blocks.outputs, self.blocks.inputs)
        whole = whole.transpose(0, 3, 1, 2, 4)
        whole = whole.reshape(grid[0] * self.blocks.outputs, grid[1], -1)
        outputs, inputs = shape[:2]
        if whole[outputs:].any() or whole[:, :, inputs:].any():
            raise DataError(
                "a block has a weight other than 0 behind the last output or the last input"
            )
        return weight_of(whole[:outputs, :, :inputs], shape)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns the numbers of blocks of outputs, kernel positions and blocks of inputs."""
        outputs, inputs, *kernel = shape
        return (
            -(-outputs // self.blocks.outputs),
            math.prod(kernel),
            -(-inputs // self.blocks.inputs),
        )

    def _cut(self, rows: np.ndarray) -> np.ndarray:
        """Returns the blocks of rows as [blocks, outputs, inputs], filled up with 0."""
        outputs, positions, inputs = rows.shape
        tall, _, wide = self._grid((outputs, inputs, positions))
        whole = np.zeros(
            (tall * self.blocks.outputs, positions, wide * self.blocks.inputs), dtype=np.int64
        )
        whole[:outputs, :, :inputs] = rows
        cut = whole.reshape(
            tall, self.blocks.outputs, positions, wide, self.blocks.inputs
        ).transpose(0, 2, 3, 1, 4)
        return cut.reshape(-1, self.blocks.outputs, self.blocks.inputs)

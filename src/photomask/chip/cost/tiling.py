"""Cuts a product into tiles that fit the buffers of an accelerator.

A tile is a range along each axis of the product. To compute a tile, its weights, the activations
that it reads, and its sums must lie in the three buffers. They may take one half of each, because
the other half is filled or emptied at the same time. If all weights or all activations of a group
fit one half, they stay there while the group is computed. The reduction (input channels, kernel) is
the innermost loop, so partial sums never leave the accumulator buffer. Groups are the outermost
loop.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.cost.dataflow import ArrayWork, WeightFolds, array_work
from photomask.chip.cost.products import (
    Product,
    compressed,
    constant_weight,
    packed_bytes,
    product_of,
)
from photomask.chip.cost.tile_search import Choice, search
from photomask.chip.cost.zero_folds import occupied_folds
from photomask.chip.program import IntegerProgram, Step
from photomask.documents import Document
from photomask.errors import TargetError

Loop = Literal[
    "groups", "channels_out", "rows", "columns", "channels_in", "kernel_rows", "kernel_columns"
]


class Sizes(Document):
    """The number of elements along each axis of a product, for one group."""

    channels_out: int = Field(ge=1)
    channels_in: int = Field(ge=1)
    rows: int = Field(ge=1)
    """The rows of output positions; `columns` are output positions, too."""
    columns: int = Field(ge=1)
    kernel_rows: int = Field(ge=1)
    kernel_columns: int = Field(ge=1)


@dataclass(frozen=True)
class Tile:
    """A range along each axis; channels are counted within the group."""

    group: int
    channels_out: range
    rows: range
    columns: range
    channels_in: range
    kernel_rows: range
    kernel_columns: range


class Tiling(Document):
    """The tiles of one step. Only the last tile along an axis may be smaller than `tile`."""

    step: str
    groups: int
    whole: Sizes
    tile: Sizes
    loop_order: tuple[Loop, ...]
    """The order of the loops, the outermost first."""
    weight_tile_bytes: int
    """The bytes of the largest tile's weights; a buffer has room for two, as for the other two
    kinds.
    """
    activation_tile_bytes: int
    accumulator_tile_bytes: int
    weights_stay: bool
    """Whether all weights of a group stay in half of the weight buffer and are read only once."""
    activations_stay: bool
    """Whether all activations that a group reads stay in one half of the activation buffer."""
    weight_bytes: int
    """The bytes of weights read from external memory, in the target's words, tile by tile.

    Folds of zeros are not read by a weight-stationary array. Compressed weights include the numbers
    of their patterns.
    """
    activation_bytes: int
    """The bytes of activations read from external memory, in memory words of the target."""

    @property
    def tile_count(self) -> int:
        """The number of all tiles."""
        whole, tile = self.whole.model_dump(), self.tile.model_dump()
        count = self.groups
        for axis, size in whole.items():
            count *= -(-size // tile[axis])
        return count

    def tiles(self) -> Iterator[Tile]:
        """Yields the tiles in the order in which they are computed."""
        ranges = {"groups": [range(group, group + 1) for group in range(self.groups)]}
        whole, tile = self.whole.model_dump(), self.tile.model_dump()
        for axis, size in whole.items():
            step = tile[axis]
            ranges[axis] = [range(start, min(start + step, size)) for start in range(0, size, step)]
        for combination in itertools.product(*(ranges[loop] for loop in self.loop_order)):
            found = dict(zip(self.loop_order, combination, strict=True))
            group = found.pop("groups").start
            yield Tile(group=group, **found)

    @classmethod
    def of(cls, step: str, product: Product, choice: Choice) -> Self:
        """Returns the choice of the search as a document."""
        positions: tuple[Loop, ...] = ("rows", "columns")
        outputs: tuple[Loop, ...] = ("channels_out",)
        middle = outputs + positions if choice.outputs_outermost else positions + outputs
        return cls(
            step=step,
            groups=product.groups,
            whole=Sizes(
                channels_out=product.channels_out,
                channels_in=product.channels_in,
                rows=product.rows.output,
                columns=product.columns.output,
                kernel_rows=product.rows.kernel,
                kernel_columns=product.columns.kernel,
            ),
            tile=Sizes(
                channels_out=choice.channels_out,
                channels_in=choice.channels_in,
                rows=choice.rows,
                columns=choice.columns,
                kernel_rows=product.rows.kernel if choice.whole_kernel else 1,
                kernel_columns=product.columns.kernel if choice.whole_kernel else 1,
            ),
            loop_order=("groups", *middle, "channels_in", "kernel_rows", "kernel_columns"),
            weight_tile_bytes=choice.weight_tile_bytes,
            activation_tile_bytes=choice.activation_tile_bytes,
            accumulator_tile_bytes=choice.accumulator_tile_bytes,
            weights_stay=choice.weights_stay,
            activations_stay=choice.activations_stay,
            weight_bytes=choice.weight_bytes,
            activation_bytes=choice.activation_bytes,
        )


def tile(program: IntegerProgram, accelerator: Accelerator) -> dict[str, Tiling]:
    """Cuts every step that multiplies matrices into tiles.

    The tile sizes to try cut an axis into 1 to 64 equal parts (channels are rounded up to the
    array's rows or columns), or are a power of two. Output positions are whole rows or parts of one
    row. A tile has the whole kernel or one tap of it. Both orders of output channels and positions
    are tried. The candidate that reads least from external memory wins; among equals the one with
    the fewest cycles. Tiles smaller than the array are used only if no others fit.

    Returns:
        The tilings by the names of the steps, in the order of computation.

    Raises:
        TargetError: an operand is too wide, or not even the smallest tile fits.
    """
    accelerator = load_accelerator(accelerator)
    found = {}
    for step in program.steps:
        product = product_of(program, step, accelerator)
        if product is not None:
            found[step.name] = tile_product(program, step, product, accelerator).tiling
    return found


@dataclass(frozen=True)
class TiledProduct:
    """A product, its tiles, and the work of the array without folds of zeros.

    Attributes:
        product: dense, or compressed if the array then takes fewer cycles.
        tiling: the tiles.
        work: the cycles of the array, and what it exchanges with the buffers.
        folds: the folds of a weight-stationary array that are left; None if it streams weights.
        skipped_folds: the number of folds of zeros.
    """

    product: Product
    tiling: Tiling
    work: ArrayWork
    folds: WeightFolds | None
    skipped_folds: int


def tile_product(
    program: IntegerProgram, step: Step, product: Product, accelerator: Accelerator
) -> TiledProduct:
    """Returns the tiles of one product, and its work on the array.

    The tiles are chosen as if no weight were zero. Then the folds of zeros are left out. If the
    weights keep the array's pattern N:M and compressed weights take fewer cycles, they are
    compressed.

    Raises:
        TargetError: not even the smallest tile fits.
    """
    choice = search(product, accelerator)
    if choice is None:
        raise TargetError(_does_not_fit(step, product, accelerator))
    weight = None
    if accelerator.dataflow == "weight_stationary":
        weight = constant_weight(program, step, product)
    dense = _tiled(step, product, choice, weight, accelerator)
    smaller = None if weight is None else compressed(product, weight, accelerator)
    choice = None if smaller is None else search(smaller, accelerator)
    if smaller is None or choice is None:
        return dense
    sparse = _tiled(step, smaller, choice, weight, accelerator)
    return sparse if sparse.work.cycles < dense.work.cycles else dense


def _tiled(
    step: Step,
    product: Product,
    choice: Choice,
    weight: np.ndarray | None,
    accelerator: Accelerator,
) -> TiledProduct:
    """Leaves the folds of zeros out of what the search chose."""
    tiling = Tiling.of(step.name, product, choice)
    if weight is None:
        work = array_work(choice.folding, product.groups, accelerator)
        return TiledProduct(product, tiling, work, None, 0)
    found = occupied_folds(weight, product, choice, accelerator)
    whole = WeightFolds.without_zeros(choice.folding, product.groups)
    return TiledProduct(
        product,
        tiling.model_copy(update={"weight_bytes": found.weight_bytes * choice.weight_readings}),
        array_work(choice.folding, product.groups, accelerator, found.folds),
        found.folds,
        whole.loaded - found.folds.loaded,
    )


def _does_not_fit(step: Step, product: Product, accelerator: Accelerator) -> str:
    """Returns a message about the buffers that cannot hold two of the smallest tiles."""
    needs = {
        "weight_buffer_bytes": packed_bytes(product.weight, 1),
        "activation_buffer_bytes": packed_bytes(product.activation, 1),
        "accumulator_buffer_bytes": -(-accelerator.accumulator_bits // 8),
    }
    missing = [
        f"{field} of at least {2 * need}, which is {getattr(accelerator, field)}"
        for field, need in needs.items()
        if 2 * need > getattr(accelerator, field)
    ]
    return (
        f"step {step.name!r} ({step.source}): two tiles of one element do not fit accelerator "
        f"{accelerator.name!r}: the accelerator needs {' and '.join(missing)}"
    )

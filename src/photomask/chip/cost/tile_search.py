"""Searches the tiles of a product: every candidate is tried, and the least traffic wins."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.dataflow import Folding, array_work
from photomask.chip.cost.products import Product, packed_bytes
from photomask.chip.operators import SpatialAxis

MOST_PARTS = 64
"""An axis is cut into 1 to this many equal parts, or into tiles of a power of two."""


@dataclass(frozen=True)
class Choice:
    """The tile sizes of one group, the order of its two outer loops, and the resulting numbers."""

    channels_out: int
    channels_in: int
    rows: int
    columns: int
    whole_kernel: bool
    """False if a tile has only one tap of the kernel."""
    outputs_outermost: bool
    """True if output channels are the outer loop and positions the inner one, False for the
    opposite.
    """
    weight_tile_bytes: int
    activation_tile_bytes: int
    accumulator_tile_bytes: int
    weights_stay: bool
    activations_stay: bool
    weight_bytes: int
    weight_readings: int
    """How often all weights are read from external memory."""
    activation_bytes: int
    folding: Folding


def tile_sizes(size: int, unit: int) -> list[int]:
    """Returns the tile sizes to try along an axis, the largest first.

    Args:
        size: the size of the axis.
        unit: tiles of equal parts are rounded up to a multiple of this number.
    """
    parts = (-(-size // count) for count in range(1, min(size, MOST_PARTS) + 1))
    equal = {min(size, -(-part // unit) * unit) for part in parts}
    powers = {1 << bit for bit in range(size.bit_length()) if 1 << bit <= size}
    return sorted(equal | powers, reverse=True)


def input_sizes(product: Product, accelerator: Accelerator) -> list[int]:
    """Returns the input channels of a tile to try; compressed groups of inputs stay whole."""
    if product.pattern is None:
        return tile_sizes(product.channels_in, accelerator.rows)
    sizes = tile_sizes(product.channels_in, accelerator.sparse_inputs)
    whole = product.channels_in
    return [size for size in sizes if size == whole or size % product.pattern.group == 0]


def position_sizes(product: Product) -> list[tuple[int, int]]:
    """Returns the rows and columns to try: whole rows, or parts of one row."""
    rows, columns = product.rows.output, product.columns.output
    whole_rows = [(size, columns) for size in tile_sizes(rows, 1)]
    return whole_rows + [(1, size) for size in tile_sizes(columns, 1) if size < columns]


@lru_cache(maxsize=4096)
def touched(axis: SpatialAxis, size: int, whole_kernel: bool) -> tuple[int, int]:
    """Returns how many input elements all tiles of `size` outputs read, and the largest tile reads.

    If the kernel is not whole, the first number is summed over its taps.
    """
    parts = [range(axis.kernel)] if whole_kernel else [range(k, k + 1) for k in range(axis.kernel)]
    found = [_touched_by_tiles(axis, size, taps) for taps in parts]
    return sum(total for total, _ in found), max(largest for _, largest in found)


def _touched_by_tiles(axis: SpatialAxis, size: int, taps: range) -> tuple[int, int]:
    """Returns the elements that all tiles read, and that the largest tile reads.

    Tiles away from the padding all read the same number, so only those at the ends are counted one
    by one.
    """
    count = -(-axis.output // size)
    start = taps[0] * axis.dilation - axis.padding
    stop = taps[-1] * axis.dilation - axis.padding
    first = min(count, max(0, -(start // (axis.stride * size))))
    last = ((axis.input - 1 - stop) // axis.stride - size + 1) // size + 1
    last = max(first, min(axis.output // size, last))
    counts = [
        axis.touched(range(n * size, min((n + 1) * size, axis.output)), taps)
        for n in (*range(first), *range(last, count))
    ]
    alike = axis.touched(range(first * size, (first + 1) * size), taps) if first < last else 0
    return sum(counts) + (last - first) * alike, max(alike, *counts, 0)


@dataclass(frozen=True)
class _Axis:
    """Candidate sizes along one axis, as an array that broadcasts against the other axes."""

    size: int
    tile: np.ndarray

    @property
    def count(self) -> np.ndarray:
        return -(-self.size // self.tile)

    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns tile sizes and their numbers: full tiles, and the rest (0 or 1 tile)."""
        rest = self.size % self.tile
        return [(self.tile, self.size // self.tile), (rest, np.minimum(rest, 1))]


class _Grid:
    """All candidates: output channels × input channels × positions × kernel or single taps."""

    def __init__(self, product: Product, accelerator: Accelerator):
        self.product, self.accelerator = product, accelerator
        self.positions = position_sizes(product)
        self.kernels = [True, False] if product.taps > 1 else [True]
        outputs = tile_sizes(product.channels_out, accelerator.columns)
        inputs = input_sizes(product, accelerator)
        self.outputs = _Axis(product.channels_out, _along(outputs, 0))
        self.inputs = _Axis(product.channels_in, _along(inputs, 1))
        self.rows = _Axis(product.rows.output, _along([r for r, _ in self.positions], 2))
        self.columns = _Axis(product.columns.output, _along([c for _, c in self.positions], 2))
        self.taps = _Axis(product.taps, _along([product.taps if k else 1 for k in self.kernels], 3))
        held = self.outputs.tile * product.held(self.inputs.tile) * self.taps.tile
        self.weight_tile = product.weight_bytes(held)
        self.sums_tile = (
            self.outputs.tile
            * self.rows.tile
            * self.columns.tile
            * -(-accelerator.accumulator_bits // 8)
        )
        read, patch = self._input_elements()
        channels = product.groups * product.channels_in
        self.activation_pass = packed_bytes(product.activation, read * channels)
        self.activation_tile = packed_bytes(product.activation, patch * self.inputs.tile)
        down, across = (
            touched(axis, axis.output, True)[0] for axis in (product.rows, product.columns)
        )
        self.activation_group = packed_bytes(
            product.activation, down * across * product.channels_in
        )
        self.activation_once = packed_bytes(product.activation, down * across * channels)
        weight_pass = self._weight_pass()
        self.weight_pass = weight_pass * product.groups
        self.weights_stay = 2 * weight_pass <= accelerator.weight_buffer_bytes
        self.activations_stay = 2 * self.activation_group <= accelerator.activation_buffer_bytes

    def _input_elements(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positions of an input channel that all tiles and the largest tile read."""
        shape = (1, 1, len(self.positions), len(self.kernels))
        read, patch = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for p, (rows, columns) in enumerate(self.positions):
            for k, whole in enumerate(self.kernels):
                down = touched(self.product.rows, rows, whole)
                across = touched(self.product.columns, columns, whole)
                read[0, 0, p, k] = down[0] * across[0]
                patch[0, 0, p, k] = down[1] * across[1]
        return read, patch

    def _weight_pass(self) -> np.ndarray:
        """Returns the bytes of the weights of a group, cut into tiles of whole words."""
        total = sum(
            self.product.weight_bytes(outputs * self.product.held(inputs) * self.taps.tile) * m * n
            for outputs, m in self.outputs.parts()
            for inputs, n in self.inputs.parts()
        )
        return np.asarray(total * self.taps.count)

    def traffic(self) -> np.ndarray:
        """Returns the bytes of weights and activations that are read, as [2, order, …].

        Order 0 has the output channels as the outer loop. A tile stays in its buffer while the loop
        inside it runs. All weights, or all activations, of a group stay if the buffer can hold
        those of two groups.
        """
        reductions = self.inputs.count * self.taps.count
        pixels = self.rows.count * self.columns.count
        outputs, whole = self.outputs.count, reductions == 1
        factors = [
            (np.where(whole, 1, pixels), np.where(whole & (pixels == 1), 1, outputs)),
            (np.where(whole & (outputs == 1), 1, pixels), np.where(whole, 1, outputs)),
        ]
        weights = [self.weight_pass * np.where(self.weights_stay, 1, w) for w, _ in factors]
        activations = [
            np.asarray(self.activation_once if self.activations_stay else self.activation_pass * a)
            for _, a in factors
        ]
        return np.stack(
            [[np.broadcast_to(x, self.shape) for x in kind] for kind in (weights, activations)]
        )

    @property
    def shape(self) -> tuple[int, ...]:
        parts = (self.outputs.tile, self.inputs.tile, self.rows.tile, self.taps.tile)
        return np.broadcast_shapes(*(part.shape for part in parts))

    def fits(self) -> np.ndarray:
        """Tells for each candidate whether each buffer can hold two of its tiles."""
        accelerator = self.accelerator
        return (
            (2 * self.weight_tile <= accelerator.weight_buffer_bytes)
            & (2 * self.activation_tile <= accelerator.activation_buffer_bytes)
            & (2 * self.sums_tile <= accelerator.accumulator_buffer_bytes)
        )

    def fills(self) -> np.ndarray:
        """Tells for each candidate whether its tiles are as large as the array or the product."""
        held = self.product.held
        reduction = (
            held(self.inputs.tile) * self.taps.tile,
            held(self.inputs.size) * self.taps.size,
        )
        pixels = (self.rows.tile * self.columns.tile, self.rows.size * self.columns.size)
        outputs = (self.outputs.tile, self.outputs.size)
        along_rows, along_columns = {
            "weight_stationary": (reduction, outputs),
            "output_stationary": (pixels, outputs),
            "input_stationary": (reduction, pixels),
        }[self.accelerator.dataflow]
        return (along_rows[0] >= min(along_rows[1], self.accelerator.rows)) & (
            along_columns[0] >= min(along_columns[1], self.accelerator.columns)
        )

    def folding(self) -> Folding:
        """Returns how each candidate folds onto the array."""
        rows, columns = self.accelerator.rows, self.accelerator.columns
        held = self.product.held
        return Folding(
            reduction=self.product.channels_in * self.product.taps,
            held=held(self.product.channels_in) * self.product.taps,
            reduction_tiles=self.inputs.count * self.taps.count,
            reduction_row_folds=self.taps.count
            * sum(-(-held(i) * self.taps.tile // rows) * n for i, n in self.inputs.parts()),
            outputs=self.product.channels_out,
            output_tiles=self.outputs.count,
            output_column_folds=sum(-(-o // columns) * n for o, n in self.outputs.parts()),
            pixels=self.product.positions,
            pixel_tiles=self.rows.count * self.columns.count,
            pixel_row_folds=self._pixel_folds(rows),
            pixel_column_folds=self._pixel_folds(columns),
        )

    def _pixel_folds(self, cells: int) -> np.ndarray:
        return np.asarray(
            sum(
                -(-r * c // cells) * m * n
                for r, m in self.rows.parts()
                for c, n in self.columns.parts()
            )
        )


def _along(values: list[int], axis: int) -> np.ndarray:
    return np.array(values, dtype=np.int64).reshape(*(1,) * axis, -1, *(1,) * (3 - axis))


def search(product: Product, accelerator: Accelerator) -> Choice | None:
    """Returns the candidate with the least external traffic, or None if not even the smallest fits.

    Tiles smaller than the array are used only if no others fit. Among candidates with equal
    traffic, the one with the fewest cycles of the array wins, then the one with the fewest tiles,
    then the first. The result is therefore always the same.
    """
    grid = _Grid(product, accelerator)
    fits = np.broadcast_to(grid.fits(), grid.shape)
    if not fits.any():
        return None
    if (filling := fits & grid.fills()).any():
        fits = filling
    traffic = grid.traffic()
    folding = grid.folding()
    cycles = array_work(folding, product.groups, accelerator).cycles
    tiles = folding.output_tiles * folding.reduction_tiles * folding.pixel_tiles
    kept = np.broadcast_to(fits, traffic.shape[1:])
    for cost in (traffic.sum(axis=0), cycles, tiles):
        cost = np.broadcast_to(cost, kept.shape)
        kept = kept & (cost == cost[kept].min())
    order, o, i, p, k = (int(n) for n in np.argwhere(kept)[0])
    weights, activations = (int(traffic[n, order, o, i, p, k]) for n in range(2))

    def at(values: np.ndarray) -> int:
        return int(np.broadcast_to(values, grid.shape)[o, i, p, k])

    return Choice(
        channels_out=at(grid.outputs.tile),
        channels_in=at(grid.inputs.tile),
        rows=at(grid.rows.tile),
        columns=at(grid.columns.tile),
        whole_kernel=grid.kernels[k],
        outputs_outermost=order == 0,
        weight_tile_bytes=at(grid.weight_tile),
        activation_tile_bytes=at(grid.activation_tile),
        accumulator_tile_bytes=at(grid.sums_tile),
        weights_stay=bool(np.broadcast_to(grid.weights_stay, grid.shape)[o, i, p, k]),
        activations_stay=bool(grid.activations_stay),
        weight_bytes=weights,
        weight_readings=weights // at(grid.weight_pass),
        activation_bytes=activations,
        folding=Folding(**{name: at(value) for name, value in vars(folding).items()}),
    )

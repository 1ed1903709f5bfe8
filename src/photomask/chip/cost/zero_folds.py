"""Counts the folds of constant weights that a weight-stationary array loads.

A tile of weights is cut into folds of as many outputs as the array has columns, and as many terms
as it has rows. The terms are ordered by kernel position, then by input channel. The terms of
compressed weights are the slots of their groups. A fold whose weights are all zero is not read
from external memory, not loaded, and not computed.
"""

from dataclasses import dataclass

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.dataflow import WeightFolds
from photomask.chip.cost.products import Product
from photomask.chip.cost.tile_search import Choice


@dataclass(frozen=True)
class OccupiedFolds:
    """The folds that are left without those of zeros.

    Attributes:
        folds: all folds that the array computes, for one tile of pixels.
        weight_bytes: the bytes of their weights, in whole words for each tile.
    """

    folds: WeightFolds
    weight_bytes: int


def occupied_folds(
    weight: np.ndarray, product: Product, choice: Choice, accelerator: Accelerator
) -> OccupiedFolds:
    """Returns the folds of a product that hold a weight other than zero.

    Args:
        weight: int64 [groups, outputs, inputs, kernel positions].
        product: dense, or compressed.
        choice: the tile sizes.
        accelerator: gives rows and columns.
    """
    taps = product.taps if choice.whole_kernel else 1
    loaded = streamed = weights = inputs = sums = stored = 0
    for first in range(0, product.channels_out, choice.channels_out):
        block = weight[:, first : first + choice.channels_out]
        widths = _sizes(block.shape[1], accelerator.columns)
        used = np.zeros((len(weight), len(widths)), dtype=bool)
        for row in range(0, product.channels_in, choice.channels_in):
            for tap in range(0, product.taps, taps):
                part = block[:, :, row : row + choice.channels_in, tap : tap + taps]
                terms = _Terms.of(part, product)
                occupied = terms.occupied(accelerator)  # [groups, columns, rows]
                heights = _sizes(len(terms.channels), accelerator.rows)
                held = np.einsum("gcr,c,r->g", occupied, widths, heights)
                loaded += int(occupied.sum())
                weights += int(held.sum())
                inputs += int((occupied * _sums(terms.channels, accelerator.rows)).sum())
                sums += int(np.einsum("gcr,c->", occupied, widths))
                stored += int(product.weight_bytes(held).sum())
                used |= occupied.any(axis=2)
        streamed += int((~used).sum())
        sums += int((~used * widths).sum())
    # Each map of a sample is computed with the same weights, which are read again.
    maps = product.groups // len(weight)
    return OccupiedFolds(
        WeightFolds(
            loaded=maps * loaded,
            streamed=maps * (loaded + streamed),
            weights=maps * weights,
            inputs=maps * inputs,
            sums=maps * sums,
        ),
        weight_bytes=maps * stored,
    )


@dataclass(frozen=True)
class _Terms:
    """The weights of a tile, term by term.

    Attributes:
        used: bool [groups, outputs, terms], whether the weights of a term may differ from zero.
        channels: int64 [terms], how many input activations the term brings. The N terms of a
            compressed group bring up to M together, which the first one counts.
    """

    used: np.ndarray
    channels: np.ndarray

    @classmethod
    def of(cls, part: np.ndarray, product: Product) -> "_Terms":
        """Returns the terms of a tile of weights, [groups, outputs, inputs, kernel positions]."""
        used = part.transpose(0, 1, 3, 2) != 0
        inputs, taps = part.shape[2:]
        if product.pattern is None:
            return cls(used.reshape(*part.shape[:2], -1), np.ones(inputs * taps, dtype=np.int64))
        kept, size = product.pattern.kept, product.pattern.group
        count = -(-inputs // size)
        whole = np.zeros((*used.shape[:3], count * size), dtype=bool)
        whole[..., :inputs] = used
        groups = whole.reshape(*used.shape[:3], count, size).any(axis=-1)
        channels = np.zeros((taps, count, kept), dtype=np.int64)
        channels[:, :, 0] = _sizes(inputs, size)
        return cls(
            np.repeat(groups, kept, axis=-1).reshape(*part.shape[:2], -1), channels.reshape(-1)
        )

    def occupied(self, accelerator: Accelerator) -> np.ndarray:
        """Tells which folds hold a weight that is not zero, [groups, column folds, row folds]."""
        rows, columns = accelerator.rows, accelerator.columns
        groups, outputs, terms = self.used.shape
        shape = (-(-outputs // columns), -(-terms // rows))
        whole = np.zeros((groups, shape[0] * columns, shape[1] * rows), dtype=bool)
        whole[:, :outputs, :terms] = self.used
        folds = whole.reshape(groups, shape[0], columns, shape[1], rows)
        return np.asarray(folds.any(axis=(2, 4)))


def _sizes(total: int, step: int) -> np.ndarray:
    """Returns the sizes of the parts of `step` elements; the last one may be smaller."""
    return np.array([min(step, total - start) for start in range(0, total, step)], dtype=np.int64)


def _sums(values: np.ndarray, step: int) -> np.ndarray:
    """Returns the sum of each part of `step` values."""
    return np.add.reduceat(values, np.arange(0, len(values), step))

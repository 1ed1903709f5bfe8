"""Chooses which weights to keep: those with the highest scores, within the units of a pattern.

The scores decide alone. Equal scores are decided by position, so a choice is the same on every
device and in every process.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.sparsity import Blocks, NofM


def keep_of_groups(scores: Tensor, pattern: NofM) -> Tensor:
    """Returns a mask that keeps the best N of M consecutive inputs.

    Args:
        scores: [outputs, inputs, *kernel]; M must divide the number of inputs.
        pattern: N and M.
    """
    outputs, inputs, *kernel = scores.shape
    groups = scores.reshape(outputs, inputs // pattern.group, pattern.group, *kernel)
    order = groups.argsort(dim=2, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    best = order.narrow(2, 0, pattern.kept)
    keep.scatter_(2, best, torch.ones_like(best, dtype=torch.bool))
    return keep.reshape(scores.shape)


def keep_best(scores: Sequence[Tensor], shares: Sequence[float]) -> list[Tensor]:
    """Returns a mask for each tensor, which keeps a share of its elements.

    Args:
        scores: tensors of any shapes.
        shares: for each tensor, the share that is kept, 0 to 1; at least one element is kept.
    """
    return [
        _best(each.reshape(-1), max(1, round(share * each.numel()))).reshape(each.shape)
        for each, share in zip(scores, shares, strict=True)
    ]


def keep_best_of_all(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """Returns a mask for each tensor; together they keep a share of the elements of all.

    Args:
        scores: tensors of any shapes, whose elements are compared with each other.
        share: the share that is kept, 0 to 1; at least one element is kept.
    """
    flat = torch.cat([each.reshape(-1) for each in scores])
    keep = _best(flat, max(1, round(share * flat.numel())))
    parts = keep.split([each.numel() for each in scores])
    return [part.reshape(each.shape) for part, each in zip(parts, scores, strict=True)]


def keep_best_of_rows(scores: Tensor, share: float) -> Tensor:
    """Returns a mask that keeps the same share of the weights of each output.

    Args:
        scores: [outputs, ...].
        share: the share that is kept, 0 to 1; at least one weight of an output is kept.
    """
    rows = scores.reshape(len(scores), -1)
    order = rows.argsort(dim=1, descending=True, stable=True)
    best = order[:, : max(1, round(share * rows.shape[1]))]
    keep = torch.zeros_like(rows, dtype=torch.bool)
    keep.scatter_(1, best, torch.ones_like(best, dtype=torch.bool))
    return keep.reshape(scores.shape)


def block_scores(scores: Tensor, blocks: Blocks) -> Tensor:
    """Returns the mean score of each block, [blocks, blocks, *kernel].

    Args:
        scores: [outputs, inputs, *kernel]. Blocks at the ends may be smaller.
        blocks: the size of a block.
    """
    present = _cut(torch.ones_like(scores), blocks).sum(dim=(1, 3))
    return _cut(scores, blocks).sum(dim=(1, 3)) / present


def spread_blocks(keep: Tensor, blocks: Blocks, shape: Sequence[int]) -> Tensor:
    """Returns the mask of the weights from the mask of their blocks.

    Args:
        keep: bool [blocks, blocks, *kernel].
        blocks: the size of a block.
        shape: the shape of the weight, [outputs, inputs, *kernel].
    """
    whole = keep.repeat_interleave(blocks.outputs, dim=0).repeat_interleave(blocks.inputs, dim=1)
    return whole[: shape[0], : shape[1]]


def _cut(values: Tensor, blocks: Blocks) -> Tensor:
    """Returns values in blocks [O, outputs, I, inputs, *kernel], with 0 behind the ends."""
    outputs, inputs, *kernel = values.shape
    rows, columns = math.ceil(outputs / blocks.outputs), math.ceil(inputs / blocks.inputs)
    whole = values.new_zeros(rows * blocks.outputs, columns * blocks.inputs, *kernel)
    whole[:outputs, :inputs] = values
    return whole.reshape(rows, blocks.outputs, columns, blocks.inputs, *kernel)


def _best(flat: Tensor, count: int) -> Tensor:
    """Returns a mask of the `count` highest of a list of numbers."""
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep[flat.argsort(descending=True, stable=True)[:count]] = True
    return keep

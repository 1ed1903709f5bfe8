"""Prunes gradually, and lets pruned weights grow again where the loss wants them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from photomask.chip.pruning.base import Moment, PrunableWeight, Pruner, gradient_of
from photomask.errors import PruningError


class GraNet(Pruner):
    """Prunes the smallest weights of all layers, and regenerates some by their gradient.

    At each update of the schedule:

    1. The smallest weights of all layers are pruned, up to the sparsity of the moment, which grows
       by the cubic ramp of `PruningSchedule`.
    2. In each layer a share `r` of the kept weights, the smallest, is replaced by as many pruned
       weights, those with the largest `|dL/dw|`. These start at 0.
       `r = regrowth / 2 * (1 + cos(pi * progress))`.

    The gradient is that of the masked network with respect to all its weights. A network that
    multiplies its weights by the mask in the usual way has none for pruned weights.

    Args:
        sparsity: the share of the weights that are pruned in the end.
        regrowth: the share of the kept weights that is replaced at the first update, 0 to 1.
        settings: those of `Pruner`; the scope is `global` unless it is given. Patterns are refused,
            because a weight that grows would break them.

    Raises:
        PruningError: the settings contradict each other.

    Source: GraNet, Liu et al. 2021, section 3.3, arXiv:2106.10404, in the form that starts dense.
    """

    needs = frozenset({"gradients"})
    only_trains = True

    def __init__(self, sparsity: float, *, regrowth: float = 0.5, **settings: Any):
        settings = {"scope": "global"} | settings
        super().__init__(sparsity, **settings)
        check_regrowth(self, regrowth)
        self.regrowth = float(regrowth)

    def update(self, weights: Sequence[PrunableWeight], moment: Moment) -> list[Tensor]:
        """Returns the masks after pruning and regeneration."""
        share = self.regrowth / 2 * (1 + math.cos(math.pi * moment.progress))
        kept = self.masks(weights, moment.sparsity)
        return [replace(w, mask, share) for w, mask in zip(weights, kept, strict=True)]


def replace(weight: PrunableWeight, mask: Tensor, share: float) -> Tensor:
    """Replaces the smallest kept weights by pruned ones with the largest gradients.

    Args:
        weight: the weight with its gradient.
        mask: bool, False where the weight is pruned.
        share: the share of the kept weights that is replaced, 0 to 1.

    Returns:
        A mask with as many True elements.
    """
    flat = mask.reshape(-1)
    kept = int(flat.sum())
    count = min(int(share * kept), flat.numel() - kept)
    sizes = torch.where(flat, weight.weight.reshape(-1).abs(), torch.inf)
    slopes = torch.where(flat, -torch.inf, gradient_of(weight).reshape(-1).abs())
    found = flat.clone()
    found[sizes.argsort(stable=True)[:count]] = False
    found[slopes.argsort(descending=True, stable=True)[:count]] = True
    return found.reshape(mask.shape)


def check_regrowth(pruner: Pruner, regrowth: float) -> None:
    """Refuses a share of regrowth out of range, and patterns that regrowth would break.

    Raises:
        PruningError: the message says which of them was found.
    """
    if pruner.pattern is not None:
        raise PruningError(
            f"{type(pruner).__name__} lets single weights grow again, which breaks the pattern "
            f"{pruner.pattern}; use Magnitude or SparseRefinement for patterns"
        )
    if not 0 <= regrowth <= 1:
        raise PruningError(
            f"regrowth must be from 0 to 1, found {regrowth!r}; it is the share of the kept "
            "weights that the first update replaces"
        )

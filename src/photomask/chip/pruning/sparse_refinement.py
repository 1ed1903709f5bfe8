"""Trains a network whose mask follows its weights, as N:M sparsity needs it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from photomask.chip.pruning.base import PrunableWeight, Pruner, gradient_of
from photomask.errors import PruningError


class SparseRefinement(Pruner):
    """Chooses the largest weights after every step, and lets pruned weights go on learning.

    The forward pass uses the masked weight. The gradient passes the mask straight through, and
    pruned weights are drawn towards 0, so that the mask comes to rest (SR-STE):

        gradient = dL/d(mask * w) + decay * (1 - mask) * w

    Args:
        sparsity: as for `Pruner`; leave it out for an N:M pattern.
        decay: the factor that draws pruned weights towards 0.
        settings: those of `Pruner`, such as `pattern=NofM(kept=2, group=4)`.

    Raises:
        PruningError: the settings contradict each other.

    Source: SR-STE, Zhou et al. 2021, equation 9, arXiv:2102.04010, for N:M. The paper uses the
    decay 2e-4.
    """

    needs = frozenset({"gradients"})
    only_trains = True
    keeps_hidden = True
    follows_weights = True

    def __init__(self, sparsity: float | None = None, *, decay: float = 2e-4, **settings: Any):
        super().__init__(sparsity, **settings)
        if not decay >= 0:
            raise PruningError(f"decay must be 0 or more, found {decay!r}")
        self.decay = float(decay)

    def first_masks(self, weights: Sequence[PrunableWeight], generator: Any) -> list[Tensor]:
        """Returns the masks of the first weights, because the pattern holds from the beginning."""
        return self.masks(weights, self.sparsity)

    def gradient(self, weight: PrunableWeight) -> Tensor:
        """Returns the gradient of the masked weight, and the decay of pruned weights."""
        return gradient_of(weight) + self.decay * weight.weight * ~weight.mask

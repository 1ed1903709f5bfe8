"""Prunes the weights whose removal changes the loss least, to first order."""

from typing import Any

from torch import Tensor

from photomask.chip.pruning.base import PrunableWeight, Pruner, gradient_of


class Snip(Pruner):
    """Keeps the weights whose product with their gradient is largest.

        score = |w * dL/dw|

    The scores are compared over all layers, unless `scope` says otherwise. `prune` measures the
    gradient on labelled data.

    Source: SNIP, Lee et al. 2019, equation 6, arXiv:1810.02340. The paper divides by the sum of all
    scores, which changes no comparison, and prunes a network that is not trained; `prune` prunes
    the weights as they are.
    """

    needs = frozenset({"gradients"})

    def __init__(self, sparsity: float | None = None, **settings: Any):
        if settings.get("pattern") is None:
            settings = {"scope": "global"} | settings
        super().__init__(sparsity, **settings)

    def score(self, weight: PrunableWeight) -> Tensor:
        """Returns `|w * dL/dw|`."""
        return (weight.weight * gradient_of(weight)).abs()

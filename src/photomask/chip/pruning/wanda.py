"""Prunes weights by their magnitude and the size of the inputs that they multiply."""

from typing import Any

from torch import Tensor

from photomask.chip.pruning.base import PrunableWeight, Pruner, input_norms_of


class Wanda(Pruner):
    """Keeps the weights whose products with their inputs are large; needs no labels.

        score[o, i] = |w[o, i]| * ||x[i]||

    `||x[i]||` is the Euclidean norm of an input over all samples and positions of the calibration
    data. Without a pattern, the weights of one output compete with each other.

    Source: Wanda, Sun et al. 2024, equation 1, arXiv:2306.11695, for linear layers. Here a
    convolution uses the norm of its input channel at every kernel position.
    """

    needs = frozenset({"inputs"})

    def __init__(self, sparsity: float | None = None, **settings: Any):
        if settings.get("pattern") is None:
            settings = {"scope": "output"} | settings
        super().__init__(sparsity, **settings)

    def score(self, weight: PrunableWeight) -> Tensor:
        """Returns `|w| * ||x||`."""
        return weight.weight.abs() * input_norms_of(weight)

"""Trains a network that is sparse from the beginning, and moves its weights."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from photomask.chip.pruning.base import Moment, PrunableWeight, Pruner
from photomask.chip.pruning.granet import check_regrowth, replace


class RigL(Pruner):
    """Starts from a random sparse network, and replaces small weights by their gradient.

    The layers get densities in proportion to `(outputs + inputs + kernel) / (outputs * inputs *
    kernel)`, at most 1 (Erdős-Rényi-Kernel). At each update of the schedule, a share
    `r = regrowth / 2 * (1 + cos(pi * progress))` of the kept weights of each layer, the smallest,
    is replaced by as many pruned weights, those with the largest `|dL/dw|`. These start at 0.

    Args:
        sparsity: the share of the weights that are pruned, from the beginning to the end.
        regrowth: the share of the kept weights that is replaced at the first update, 0 to 1.
        settings: those of `Pruner`; patterns are refused, because a weight that grows would break
            them.

    Raises:
        PruningError: the settings contradict each other.

    Source: RigL, Evci et al. 2020, section 3, arXiv:1911.11134.
    """

    needs = frozenset({"gradients"})
    only_trains = True

    def __init__(self, sparsity: float, *, regrowth: float = 0.3, **settings: Any):
        super().__init__(sparsity, **settings)
        check_regrowth(self, regrowth)
        self.regrowth = float(regrowth)

    def first_masks(
        self, weights: Sequence[PrunableWeight], generator: torch.Generator
    ) -> list[Tensor]:
        """Returns random masks with the densities of Erdős-Rényi-Kernel."""
        shapes = [weight.weight.shape for weight in weights]
        densities = kernel_densities(shapes, 1 - self.sparsity)
        masks = []
        for weight, density in zip(weights, densities, strict=True):
            size = weight.weight.numel()
            flat = torch.zeros(size, dtype=torch.bool)
            flat[torch.randperm(size, generator=generator)[: max(1, round(density * size))]] = True
            masks.append(flat.reshape(weight.weight.shape).to(weight.weight.device))
        return masks

    def update(self, weights: Sequence[PrunableWeight], moment: Moment) -> list[Tensor]:
        """Returns the masks after some weights of each layer were replaced."""
        share = self.regrowth / 2 * (1 + math.cos(math.pi * moment.progress))
        return [replace(weight, weight.mask, share) for weight in weights]


def kernel_densities(shapes: Sequence[Sequence[int]], density: float) -> list[float]:
    """Returns the densities of Erdős-Rényi-Kernel, which keep a share of all weights together.

    Args:
        shapes: the shapes of the weights.
        density: the share of the weights of all layers that is kept.
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while len(dense) < len(shapes):
        left = density * sum(sizes) - sum(sizes[at] for at in dense)
        factor = left / sum(raw[at] * sizes[at] for at in range(len(shapes)) if at not in dense)
        full = {at for at in range(len(shapes)) if at not in dense and factor * raw[at] > 1}
        if not full:
            return [1.0 if at in dense else factor * raw[at] for at in range(len(shapes))]
        dense |= full
    return [1.0] * len(shapes)

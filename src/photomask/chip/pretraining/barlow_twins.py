"""Barlow Twins: the two views agree in each dimension, and the dimensions are not redundant."""

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.pretraining.method import Method
from photomask.errors import UsageError


@dataclass(frozen=True)
class BarlowTwins(Method):
    """Makes the correlation matrix of the two views' embeddings the identity.

        L = sum_i (1 - C_ii)^2 + redundancy_weight * sum_i sum_{j != i} C_ij^2
        C_ij = sum_b a_bi * b_bj / (sqrt(sum_b a_bi^2) * sqrt(sum_b b_bj^2))

    Here `a` and `b` are the embeddings of the two views, centred over the samples of the batch.

    In a training of several processes, each of them correlates its own part of a batch. The source
    correlates the whole batch.

    Args:
        redundancy_weight: the weight of the second term, `lambda` in the paper.

    Source: Zbontar et al. 2021, section 2, arXiv:2103.03230.
    """

    redundancy_weight: float = 0.0051

    def __post_init__(self) -> None:
        """Checks the weight."""
        if not 0 <= self.redundancy_weight < float("inf"):
            raise UsageError(
                "redundancy_weight is the weight of a term of the loss, 0 or more; found "
                f"{self.redundancy_weight:g}"
            )

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the loss, [], of the embeddings of two views, [samples, dimensions]."""
        correlation = _standard(first).T @ _standard(second)
        diagonal = correlation.diagonal()
        redundant = correlation.square().sum() - diagonal.square().sum()
        return (1 - diagonal).square().sum() + self.redundancy_weight * redundant


def _standard(embeddings: Tensor) -> Tensor:
    """Returns each dimension centred and with norm 1; NaN where it has no variance."""
    centred = embeddings - embeddings.mean(dim=0)
    return centred / torch.linalg.vector_norm(centred, dim=0)

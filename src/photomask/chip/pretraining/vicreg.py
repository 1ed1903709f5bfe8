"""VICReg: two views agree, and every dimension keeps a variance and says something new."""

from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.pretraining.method import Method
from photomask.errors import UsageError

_EPSILON = 1e-4
"""Keeps the gradient of the standard deviation finite, as in the paper."""


@dataclass(frozen=True)
class VICReg(Method):
    """Variance, invariance and covariance terms of the embeddings.

        L = invariance * s(a, b) + variance * (v(a) + v(b)) + covariance * (c(a) + c(b))
        s(a, b) = mean over samples and dimensions of (a_bi - b_bi)^2
        v(a) = mean over dimensions of max(0, 1 - sqrt(Var(a_i) + 1e-4))
        c(a) = sum_i sum_{j != i} Cov(a)_ij^2 / dimensions

    The variance and the covariance are divided by `samples - 1`.

    It differs from the formulas of the source in that `s` is also a mean over the dimensions, as
    it is in the program of its authors, from which the usual weights come.

    Args:
        invariance: the weight of the distance of the views, `lambda` in the paper.
        variance: the weight of the hinge, `mu` in the paper.
        covariance: the weight of the covariances, `nu` in the paper.

    Source: Bardes, Ponce, LeCun 2022, section 4.1, arXiv:2105.04906.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        """Checks the weights."""
        weights = (self.invariance, self.variance, self.covariance)
        if not all(0 <= weight < float("inf") for weight in weights):
            raise UsageError(
                "invariance, variance and covariance are weights of terms of the loss, 0 or more; "
                f"found {', '.join(f'{weight:g}' for weight in weights)}"
            )

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the loss, [], of the embeddings of two views, [samples, dimensions]."""
        distance = (first - second).square().mean()
        spread = _variance_term(first) + _variance_term(second)
        redundancy = _covariance_term(first) + _covariance_term(second)
        return self.invariance * distance + self.variance * spread + self.covariance * redundancy


def _variance_term(embeddings: Tensor) -> Tensor:
    deviation = (embeddings.var(dim=0) + _EPSILON).sqrt()
    return torch.relu(1 - deviation).mean()


def _covariance_term(embeddings: Tensor) -> Tensor:
    samples, dimensions = embeddings.shape
    centred = embeddings - embeddings.mean(dim=0)
    covariance = centred.T @ centred / (samples - 1)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return off_diagonal / dimensions

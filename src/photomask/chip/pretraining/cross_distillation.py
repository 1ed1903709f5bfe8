"""XD, cross-distillation: a small encoder also learns from a larger one that learns beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from photomask.chip.pretraining.barlow_twins import BarlowTwins
from photomask.chip.pretraining.method import Method
from photomask.errors import UsageError


@dataclass(frozen=True)
class CrossDistillation(Method):
    """Correlates the embeddings of a small encoder A with those of a larger host B.

        L = L_BT(A1, A2) + L_BT(B1, B2) + distillation * (L_XD(A1, B1) + L_XD(A2, B2)) / 2
        L_XD(A, B) = sum_i (1 - C_ii)^2 + lambda * sum_i sum_{j != i} C_ij^2

    Here A1 and A2 are A's embeddings of the two views, B1 and B2 are the host's, and C is the
    correlation matrix of Barlow Twins. No gradient flows from L_XD into the host, which only
    teaches. Both encoders start without labels and learn together; only A is kept.

    It differs from the source in three ways. There, A is a part of the host that shares its
    weights: the smaller channels are masked out. Here, the host is a module of its own, so every
    pair of architectures can be used. There, the Barlow loss is between A's embedding of one view
    and the host's of the other. Here, each encoder has its own. There, the teacher of a view is a
    copy of the weights at the step before. Here, it is the host itself, with the gradient stopped.

    Args:
        host: the larger encoder. Like the small one it returns features, [samples, features]. It
            is trained in place. A host with `requires_grad_(False)` only teaches, through a
            projector that learns.
        within: the loss that each encoder has by itself, whose `lambda` the distillation shares.
        distillation: the weight of the distillation.

    Source: Meng et al. 2023, "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for
    Lightweight Model Training", section 3.2, NeurIPS 2023; Meng et al. 2024, formula 16,
    arXiv:2405.01775.
    """

    host: nn.Module = field(repr=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    within: BarlowTwins = field(default_factory=BarlowTwins)
    distillation: float = 1.0

    def __post_init__(self) -> None:
        """Checks the host and the weight."""
        if not isinstance(self.host, nn.Module):
            raise UsageError(
                "the host of a cross-distillation is an nn.Module that returns features; found a "
                f"{type(self.host).__name__}"
            )
        if not 0 <= self.distillation < float("inf"):
            raise UsageError(
                "distillation is the weight of a term of the loss, 0 or more; found "
                f"{self.distillation:g}"
            )

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the loss, [], of one encoder's embeddings of two views."""
        return self.within.loss(first, second)

    def total(self, own: Sequence[Tensor], hosted: Sequence[Tensor]) -> Tensor:
        """Returns the loss of both encoders, [], with the distillation from the host."""
        pairs = zip(own, hosted, strict=True)
        taught = [self.within.loss(small, large.detach()) for small, large in pairs]
        apart = self.loss(*own) + self.loss(*hosted)
        return apart + self.distillation * sum(taught) / len(taught)

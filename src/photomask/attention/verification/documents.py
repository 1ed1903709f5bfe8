"""The parts of what verification finds, as documents."""

from __future__ import annotations

from photomask.attention.verification.significance import (
    mcnemar,
    paired_loss_interval,
    wilson_interval,
)
from photomask.documents import Document


class TaskResult(Document):
    """The same questions, answered by the dense and by the sparse model.

    Attributes:
        task: the group of questions.
        questions: how many.
        both_right: answered rightly by both.
        only_dense: rightly by the dense model alone.
        only_sparse: rightly by the sparse model alone.
    """

    task: str
    questions: int
    both_right: int
    only_dense: int
    only_sparse: int

    @property
    def dense_accuracy(self) -> float:
        """Percent."""
        return 100 * (self.both_right + self.only_dense) / self.questions

    @property
    def sparse_accuracy(self) -> float:
        """Percent."""
        return 100 * (self.both_right + self.only_sparse) / self.questions

    @property
    def loss(self) -> float:
        """Points of accuracy lost; negative where the sparse model is better."""
        return 100 * (self.only_dense - self.only_sparse) / self.questions

    @property
    def loss_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the loss, in points."""
        return paired_loss_interval(self.only_dense, self.only_sparse, self.questions)

    @property
    def dense_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the dense accuracy, in percent."""
        return wilson_interval(self.both_right + self.only_dense, self.questions)

    @property
    def sparse_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the sparse accuracy, in percent."""
        return wilson_interval(self.both_right + self.only_sparse, self.questions)

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test: how likely two equally good models differ so much."""
        return mcnemar(self.only_dense, self.only_sparse)


class CurvePoint(Document):
    """What one budget buys and costs.

    Attributes:
        budget: the limit on lost output.
        prompts: how many were answered.
        predicted: what the plan is predicted to lose of the output, by `planning.lost_output`.
        lost_output: what it loses on the verification prompts.
        density: visible over causal query-key pairs, all heads, on the verification prompts.
        dense_accuracy: of the dense model on the same prompts, percent, mean over the tasks.
        accuracy: percent, mean over the tasks.
        worst_loss: points lost on the task that loses most.
        divergence: mean Kullback-Leibler divergence of the first token, nats.
    """

    budget: float
    prompts: int
    predicted: float
    lost_output: float
    density: float
    dense_accuracy: float | None
    accuracy: float | None
    worst_loss: float | None
    divergence: float


def mean(values: list[float]) -> float | None:
    """Returns the mean, None of nothing."""
    return sum(values) / len(values) if values else None

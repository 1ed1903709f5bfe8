"""The parts of what verification finds, as documents."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

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


class ChangedAnswer(Document):
    """A prompt to which the sparse model says something else than the dense one.

    Attributes:
        prompt: its place among the prompts, from 0.
        task: the group of questions.
        text: its words, with `[picture 1]` where a picture stands; the beginning, where it is long.
        pictures: how many.
        expected: the right answer; None where the prompt has none.
        dense: what the dense model says, up to its first token that is not expected.
        sparse: the same of the sparse model.
        dense_right: whether that is right; None where nothing is expected.
        sparse_right: the same of the sparse model.
    """

    prompt: int
    task: str
    text: str
    pictures: int
    expected: str | None
    dense: str
    sparse: str
    dense_right: bool | None
    sparse_right: bool | None


class PairCount(Document):
    """Query-key pairs that were computed, of those that a dense model computes.

    Attributes:
        prompts: over how many it is counted.
        visible: pairs that the plan's heads see.
        causal: pairs that dense heads see.
    """

    prompts: int
    visible: int
    causal: int

    @property
    def density(self) -> float:
        """Visible over causal pairs; 1 where there are none."""
        return self.visible / self.causal if self.causal else 1.0


def density_of(counts: Sequence[PairCount]) -> float:
    """Returns visible over causal pairs of all counts together; 1 where there are none."""
    causal = sum(count.causal for count in counts)
    return sum(count.visible for count in counts) / causal if causal else 1.0


class Spread(Document):
    """Several measurements of one quantity: percentiles."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the percentiles of at least two values."""
        fifths = quantiles(values, n=10, method="inclusive")
        return cls(p20=fifths[1], p50=fifths[4], p80=fifths[7])


class FirstToken(Document):
    """Time and memory of the pass from a prompt to its first token, both models in turn.

    Attributes:
        tokens: of the prompt, the longest one.
        repeats: passes of each model.
        dense_ms: milliseconds of a pass of the dense model.
        sparse_ms: the same of the sparse model.
        dense_bytes: most memory of the tensors of a pass, beyond weights and inputs.
        sparse_bytes: the same of the sparse model.
    """

    tokens: int
    repeats: int
    dense_ms: Spread
    sparse_ms: Spread
    dense_bytes: int
    sparse_bytes: int

    @property
    def speedup(self) -> float:
        """Median time of the dense over that of the sparse model; below 1 sparse is slower."""
        return self.dense_ms.p50 / self.sparse_ms.p50

    @property
    def is_told_apart(self) -> bool:
        """Whether the middle 60 % of the two models' times do not overlap."""
        dense, sparse = self.dense_ms, self.sparse_ms
        return dense.p20 > sparse.p80 or sparse.p20 > dense.p80


def mean(values: list[float]) -> float | None:
    """Returns the mean, None of nothing."""
    return sum(values) / len(values) if values else None

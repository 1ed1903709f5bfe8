"""What verification finds, as a document."""

from __future__ import annotations

from typing import Literal

from photomask.attention.head_plan import HeadPlan
from photomask.attention.verification.significance import (
    mcnemar,
    paired_loss_interval,
    wilson_interval,
)
from photomask.documents import Document
from photomask.report import Check, Verdict, joint_verdict


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


class AttentionReport(Document):
    """What a plan does to a model's answers.

    Attributes:
        plan: what was verified.
        prompts: how many; `images` and `tokens` are the fewest and the most of one prompt.
        tasks: accuracy per task; empty where no prompt has an answer.
        divergence_mean: Kullback-Leibler divergence from the dense to the sparse distribution of
            the first token, nats; `divergence_p95` its 95th percentile over the prompts.
        lost_output: by which share of itself the distribution of the first token changes: the root
            mean square over the prompts of `|z - z'| / |z|`, z the logits less their mean.
        agreement: percent of prompts whose most likely first token is the same.
        density: visible over causal query-key pairs, all heads and prompts.
        literal_difference: largest difference of a first-token logit between what runs and the
            same plan with its mask written out, over `literal_prompts` prompts, relative to the
            largest logit.
        rounding: the same difference between the dense model and its own mask written out: what
            its dtype rounds; 0 in reports of version 1, which did not measure it.
        dense_seconds: time of the dense passes; `sparse_seconds` of the sparse ones.
        mass: [layers][heads][sinks, text, own image, other images], where statistics were given.
        curve: accuracy against density over budgets, where statistics were given.
        checks: the conditions of the verdict.
    """

    schema_version: Literal[1, 2] = 2
    plan: HeadPlan
    prompts: int
    images: tuple[int, int]
    tokens: tuple[int, int]
    tasks: tuple[TaskResult, ...]
    divergence_mean: float
    divergence_p95: float
    lost_output: float
    agreement: float
    density: float
    literal_difference: float
    literal_prompts: int
    rounding: float = 0.0
    dense_seconds: float
    sparse_seconds: float
    mass: tuple[tuple[tuple[float, float, float, float], ...], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check is known to hold."""
        return self.verdict == "passed"

    @property
    def verdict(self) -> Verdict:
        """Failed if a check is; passed if all are; else some of them are not decided."""
        return joint_verdict(self.checks)

    @property
    def dense_accuracy(self) -> float | None:
        """Percent, mean over the tasks."""
        return mean([task.dense_accuracy for task in self.tasks])

    @property
    def sparse_accuracy(self) -> float | None:
        """Percent, mean over the tasks."""
        return mean([task.sparse_accuracy for task in self.tasks])

    @property
    def worst_task_loss(self) -> float | None:
        """Points lost on the task that loses most."""
        return max((task.loss for task in self.tasks), default=None)


def mean(values: list[float]) -> float | None:
    """Returns the mean, None of nothing."""
    return sum(values) / len(values) if values else None

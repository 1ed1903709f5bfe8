"""What `verify` found, as a document and as a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from photomask.attention.head_plan import HeadPlan
from photomask.attention.verification.documents import (
    ChangedAnswer,
    CurvePoint,
    FirstToken,
    PairCount,
    TaskResult,
    mean,
)
from photomask.attention.verification.first_token_section import (
    first_token_facts,
    first_token_section,
)
from photomask.attention.verification.presentation import (
    changes_section,
    curve_section,
    image_section,
    layer_section,
    plan_section,
    task_section,
)
from photomask.documents import Document
from photomask.report import (
    Check,
    Page,
    RunRecord,
    Section,
    Shown,
    Verdict,
    check_section,
    joint_verdict,
)


class AttentionReport(Shown, Document):
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
        pairs_by_image: pairs of the rows of each image, by its place in the prompt.
        pairs_by_layer: pairs of each layer, rows of text included.
        pairs_by_pattern: pairs of heads of each pattern, rows of images alone.
        changed: prompts to which the sparse model says something else; None in reports of versions
            1 and 2, which lack what is below as well.
        changed_answers: some of them.
        first_token: time and memory to the first token.
        mean_loss_limit: points of accuracy that the mean over the tasks may lose.
        task_loss_limit: points that a task may lose.
        data_sha256: over all prompts as the model reads them.
        dtype: of the model's parameters.
        run: when, where and with which versions it was measured.
        dense_seconds: time of the dense passes; `sparse_seconds` of the sparse ones.
        mass: `[layers][heads][4]`, on sinks, text, the own image and other images; where statistics
            were given.
        curve: accuracy against density over budgets, where statistics were given.
        checks: the conditions of the verdict.
    """

    schema_version: Literal[1, 2, 3] = 3
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
    pairs_by_image: tuple[PairCount, ...] = ()
    pairs_by_layer: tuple[PairCount, ...] = ()
    pairs_by_pattern: tuple[PairCount, ...] = ()
    changed: int | None = None
    changed_answers: tuple[ChangedAnswer, ...] = ()
    first_token: FirstToken | None = None
    mean_loss_limit: float | None = None
    task_loss_limit: float | None = None
    data_sha256: str = ""
    dtype: str = ""
    run: RunRecord | None = None
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

    def with_command(self, command: str) -> AttentionReport:
        """Returns the report with the command line that made it."""
        run = self.run and self.run.model_copy(update={"command": command})
        return self.model_copy(update={"run": run})

    def shown(self) -> Page:
        """Returns the page without pictures."""
        return self.page()

    def page(self, figures: dict[str, Callable[[], str]] | None = None) -> Page:
        """Puts the report into words and tables.

        Args:
            figures: what draws each picture, by the names that `pictures.figures_of` gives.
        """
        pictures, plan = figures or {}, self.plan
        sections = [check_section(self.checks)]
        if self.tasks:
            sections.append(task_section(self.tasks, self.task_loss_limit, pictures))
        if self.changed is not None:
            sections.append(changes_section(self.changed, self.changed_answers, self.prompts))
        if self.first_token is not None:
            sections.append(first_token_section(self.first_token))
        sections.append(plan_section(plan, self.pairs_by_pattern, pictures))
        if self.pairs_by_image:
            sections.append(image_section(self.pairs_by_image))
        if self.pairs_by_layer:
            sections.append(layer_section(plan, self.pairs_by_layer))
        if self.curve:
            sections.append(curve_section(self.curve, pictures))
        sections.append(Section("Provenance", facts=self.provenance(), in_terminal=False))
        met = sum(check.passed for check in self.checks)
        return Page(
            title=f"Head plan for {plan.model.model_type}",
            verdict=(
                f"{self.verdict.upper()}: {met} of {len(self.checks)} checks hold on "
                f"{self.prompts:,} prompts"
            ),
            passed={"passed": True, "failed": False, "not decided": None}[self.verdict],
            reasons=[str(check) for check in self.checks if not check.passed],
            facts=self._facts(),
            sections=sections,
            footer=f"model {plan.model.fingerprint[:16]} · {plan.decision.describe()}",
        )

    def _facts(self) -> list[tuple[str, str]]:
        facts = [("query-key pairs left, all heads", f"{100 * self.density:.1f} %")]
        if self.dense_accuracy is not None and self.sparse_accuracy is not None:
            facts.append(("accuracy, dense, mean over tasks", f"{self.dense_accuracy:.2f} %"))
            facts.append(("accuracy, sparse", f"{self.sparse_accuracy:.2f} %"))
        if self.changed is not None:
            facts.append(("prompts whose answer changed", f"{self.changed:,} of {self.prompts:,}"))
        if self.first_token is not None:
            facts += first_token_facts(self.first_token)
        facts += [
            ("output lost, first token's logits", f"{self.lost_output:.3f}"),
            ("prompts with the same first token", f"{self.agreement:.1f} %"),
            ("divergence of the first token, mean", f"{self.divergence_mean:.2g} nats"),
            ("its 95th percentile", f"{self.divergence_p95:.2g} nats"),
            ("pictures a prompt", _range(self.images)),
            ("tokens a prompt", _range(self.tokens)),
            ("time of all dense passes", f"{self.dense_seconds:.1f} s"),
            ("time of all sparse passes", f"{self.sparse_seconds:.1f} s"),
        ]
        if self.literal_prompts:
            facts.append(("difference from literal masks", f"{self.literal_difference:.1e}"))
        return facts

    def provenance(self) -> list[tuple[str, str]]:
        """Returns what was measured, on what, and by what."""
        plan, model = self.plan, self.plan.model
        facts = [
            (
                "model",
                f"{model.model_type}, {model.layers} layers × {model.heads} heads"
                + (f", {self.dtype}" if self.dtype else ""),
            ),
            ("model, SHA-256 over a sample of the weights", model.fingerprint),
            ("plan, SHA-256", plan.content_hash()),
            ("decided by", plan.decision.describe()),
            ("plan made", f"{plan.provenance.date}, Photomask {plan.provenance.photomask}"),
        ]
        if plan.calibration is not None:
            facts.append(("calibrated on", f"{plan.calibration.prompts:,} prompts"))
            facts.append(("statistics, SHA-256", plan.calibration.statistics_sha256))
        facts.append(("verified on", f"{self.prompts:,} prompts"))
        if self.data_sha256:
            facts.append(("prompts, SHA-256", self.data_sha256))
        return facts if self.run is None else [*facts, *self.run.facts()]


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"

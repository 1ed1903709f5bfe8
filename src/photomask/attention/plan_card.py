"""The card of a head plan: the README.md beside it, in a folder or in a repository on the hub.

A card has the front matter that the hub reads, and ends with a comment that holds the SHA-256 of
the text above it. So a card that nobody edited is told from a README of the user.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from photomask.attention.patterns import Pattern
from photomask.documents import quoted_yaml
from photomask.errors import UsageError
from photomask.hub import is_hub_name

if TYPE_CHECKING:
    from photomask.attention.identity import ModelIdentity
    from photomask.attention.plan_records import AnyDecision, CalibrationSummary, Provenance

PLAN_FILE = "head_plan.json"
"""The name of a plan in a folder and in a repository on the hub."""

CARD_FILE = "README.md"

SITE = "https://github.com/photomask/photomask"

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SEAL = re.compile(r"<!-- photomask card ([0-9a-f]{64}) -->\n\Z")


class PlanFacts(Protocol):
    """What a card says about a plan, as `HeadPlan` has it."""

    @property
    def model(self) -> ModelIdentity:
        """The identity of the model."""
        ...

    @property
    def decision(self) -> AnyDecision:
        """How the patterns were chosen."""
        ...

    @property
    def calibration(self) -> CalibrationSummary | None:
        """A summary of the calibration."""
        ...

    @property
    def provenance(self) -> Provenance:
        """The versions and the date."""
        ...

    def count(self, pattern: Pattern) -> int:
        """Returns the number of heads that have a pattern."""
        ...

    def content_hash(self) -> str:
        """Returns the SHA-256 of the plan."""
        ...


class MeasuredPlan(Protocol):
    """What a card says about a verification, as `AttentionReport` has it."""

    @property
    def plan(self) -> Any:
        """The plan that was verified."""
        ...

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        ...

    @property
    def density(self) -> float:
        """The share of the pairs that was computed."""
        ...

    @property
    def dense_accuracy(self) -> float | None:
        """Percent, mean over the tasks."""
        ...

    @property
    def sparse_accuracy(self) -> float | None:
        """Percent, mean over the tasks."""
        ...

    @property
    def worst_task_loss(self) -> float | None:
        """Points of accuracy."""
        ...

    @property
    def divergence_mean(self) -> float:
        """Nats."""
        ...

    @property
    def verdict(self) -> str:
        """Passed, failed or not decided."""
        ...


@dataclass(frozen=True)
class Origin:
    """What a card says that the plan does not know.

    Attributes:
        base_model: the name of the model on the hub.
        base_revision: the branch, tag or commit of the model.
        license: the license of the plan, by the identifier that the hub uses, such as `apache-2.0`.
    """

    base_model: str | None
    base_revision: str | None
    license: str | None

    def __post_init__(self) -> None:
        """Checks the name of the model.

        Raises:
            UsageError: the name cannot be that of a repository, or there is only a revision.
        """
        if self.base_model is not None and not is_hub_name(self.base_model):
            raise UsageError(
                f"base_model {self.base_model!r} is no name of a repository on the hub; expected "
                "owner/name"
            )
        if self.base_revision is not None and self.base_model is None:
            raise UsageError("base_revision needs a base_model")


def render_card(plan: PlanFacts, place: str, origin: Origin, report: MeasuredPlan | None) -> bytes:
    """Returns the card of a plan as Markdown.

    Every text that comes from the plan is escaped, so it is a text and nothing else.

    Args:
        plan: the plan.
        place: what `HeadPlan.from_pretrained` takes, for the example.
        origin: what the plan does not know.
        report: the report of a verification of this plan, or None.
    """
    parts = [
        _front_matter(plan, origin),
        f"# Head plan of {_plain(plan.model.model_type)}\n",
        f"A head plan of [Photomask]({SITE}): the attention pattern of every head in the prefill "
        f"of a vision-language model. The file `{PLAN_FILE}` holds no weights.\n",
        _table(_facts(plan, origin)),
    ]
    if report is not None:
        parts += ["## What it costs\n", _table(_costs(report))]
    parts += [
        "## How to use it\n",
        'Load the model with `attn_implementation="sdpa"`. A model with other weights is refused.'
        "\n",
        "```python\nfrom photomask.attention import HeadPlan, convert\n\n"
        f"sparse = convert(model, HeadPlan.from_pretrained({place!a}))\n```\n",
    ]
    text = "\n".join(parts)
    return f"{text}\n<!-- photomask card {_seal_of(text)} -->\n".encode()


def is_untouched_card(text: str) -> bool:
    """Returns whether a text is a card that `render_card` made and that nobody edited."""
    found = _SEAL.search(text)
    return found is not None and found[1] == _seal_of(text[: found.start()].removesuffix("\n"))


def _seal_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front_matter(plan: PlanFacts, origin: Origin) -> str:
    tags = ["photomask", "head-plan", "sparse-attention", plan.model.model_type]
    lines = ["library_name: photomask", "pipeline_tag: image-text-to-text"]
    if origin.license is not None:
        lines.append(f"license: {quoted_yaml(origin.license)}")
    if origin.base_model is not None:
        lines.append(f"base_model: {quoted_yaml(origin.base_model)}")
    lines += ["tags:", *(f"- {quoted_yaml(tag)}" for tag in tags)]
    return "\n".join(["---", *lines, "---", ""])


def _facts(plan: PlanFacts, origin: Origin) -> Mapping[str, str]:
    """Returns what is known of the plan, by what it is."""
    model, heads = plan.model, plan.model.layers * plan.model.heads
    counts = ", ".join(f"{pattern.label} {plan.count(pattern)}" for pattern in Pattern)
    facts = {
        "model": origin.base_model or "not stated",
        "revision": origin.base_revision or "not stated",
        "type of the model": model.model_type,
        "weights, fingerprint": model.fingerprint,
        "heads": f"{heads}, in {model.layers} layers: {counts}",
        "decided by": plan.decision.describe(),
    }
    found = plan.calibration
    if found is None:
        facts["calibrated on"] = "nothing: the plan was made by hand"
    else:
        tasks = ", ".join(f"{task} {count}" for task, count in sorted(found.tasks.items()))
        facts["calibrated on"] = (
            f"{found.prompts} prompts of {found.fewest_images} to {found.most_images} images"
            + (f" ({tasks})" if tasks else "")
        )
        facts["density on them"] = f"{found.density:.3f} of the dense pairs of query and key"
    made = plan.provenance
    facts["made"] = f"{made.date}, Photomask {made.photomask}, PyTorch {made.torch}" + (
        f", transformers {made.transformers}" if made.transformers else ""
    )
    return facts | {"plan, SHA-256": plan.content_hash()}


def _costs(report: MeasuredPlan) -> Mapping[str, str]:
    """Returns what a verification measured, by what it is."""
    costs = {
        "verified on": f"{report.prompts} prompts",
        "verdict": report.verdict,
        "density on them": f"{report.density:.3f} of the dense pairs of query and key",
    }
    dense, sparse = report.dense_accuracy, report.sparse_accuracy
    worst = report.worst_task_loss
    if dense is not None and sparse is not None and worst is not None:
        costs["accuracy, dense"] = f"{dense:.2f} %"
        costs["accuracy with the plan"] = f"{sparse:.2f} % ({dense - sparse:+.2f} points lost)"
        costs["task that loses most"] = f"{worst:+.2f} points lost"
    costs["divergence of the first token, mean"] = f"{report.divergence_mean:.2g} nats"
    return costs


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, ""])


def _plain(text: str) -> str:
    """Returns a text as Markdown that shows it as it is, in one line."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return _PUNCTUATION.sub(r"\\\1", printable)

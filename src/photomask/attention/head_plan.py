"""The frozen decision: one pattern for every attention head of one model."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

import photomask
from photomask.attention.identity import ModelIdentity, identify
from photomask.attention.patterns import Pattern, SinkRule
from photomask.documents import Document, read_text, write_file
from photomask.errors import DocumentError, UsageError
from photomask.report import Shown, Table

_BY_LABEL = {pattern.label: pattern for pattern in Pattern}

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]


def _pattern(value: object) -> Pattern:
    """Reads a pattern from its label."""
    if isinstance(value, Pattern):
        return value
    if isinstance(value, str) and value in _BY_LABEL:
        return _BY_LABEL[value]
    raise ValueError(f"{value!r} is no pattern; expected one of {', '.join(_BY_LABEL)}")


LabelledPattern = Annotated[
    Pattern,
    BeforeValidator(_pattern),
    PlainSerializer(lambda pattern: pattern.label),
    WithJsonSchema({"type": "string", "enum": [*_BY_LABEL]}),
]
"""A `Pattern` in Python, its label in JSON."""


class HandDecision(Document):
    """Somebody chose the patterns."""

    rule: Literal["hand"] = "hand"

    def describe(self) -> str:
        """Returns the rule in one line."""
        return "chosen by hand"


class BudgetDecision(Document):
    """A budget was spent where it saves most.

    Attributes:
        budget: limit of the lost output.
        lost_output: what the plan loses on the calibration prompts, by the same measure.
    """

    rule: Literal["budget"] = "budget"
    budget: _Fraction
    lost_output: _Fraction

    def describe(self) -> str:
        """Returns the rule in one line."""
        return f"budget {self.budget:g} of lost output, {self.lost_output:.4g} spent"


class VoteDecision(Document):
    """Prompts voted for the cheapest pattern that keeps enough attention.

    Attributes:
        alpha: attention mass that a pattern may lose, for the first and the last layer; linear in
            depth between them.
        gamma_sink: fraction of prompts for which a sink head must suffice.
        gamma_intra_image: the same for an intra-image head.
        gamma_both: the same for a head with both.
    """

    rule: Literal["votes"] = "votes"
    alpha: tuple[_Fraction, _Fraction]
    gamma_sink: _Fraction
    gamma_intra_image: _Fraction
    gamma_both: _Fraction

    def describe(self) -> str:
        """Returns the rule in one line."""
        first, last = self.alpha
        return (
            f"votes of prompts, alpha {first:g} to {last:g}, gamma sink {self.gamma_sink:g}, "
            f"intra-image {self.gamma_intra_image:g}, both {self.gamma_both:g}"
        )


class PatternRecall(Document):
    """Mean attention mass that each sparse pattern would keep, over heads and prompts."""

    sink: _Fraction
    intra_image: _Fraction
    intra_image_sink: _Fraction


class CalibrationSummary(Document):
    """What the plan was decided from, and what it means there.

    Attributes:
        prompts: that were measured.
        fewest_images: of a prompt.
        most_images: of a prompt.
        tasks: prompts of each task.
        density: pairs of query and key that the plan visits, over those of the dense model.
        recall: see there.
        statistics_sha256: content hash of the statistics.
    """

    prompts: Annotated[int, Field(ge=1)]
    fewest_images: _Count
    most_images: _Count
    tasks: dict[str, _Count]
    density: _Fraction
    recall: PatternRecall
    statistics_sha256: str


class Provenance(Document):
    """Who made it, for people; the content hash leaves it out."""

    photomask: str
    torch: str
    transformers: str | None
    date: str

    @classmethod
    def here(cls) -> Provenance:
        """Returns the installed versions and today's date."""
        try:
            transformers = metadata.version("transformers")
        except metadata.PackageNotFoundError:
            transformers = None
        return cls(
            photomask=photomask.__version__,
            torch=str(torch.__version__),
            transformers=transformers,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )


class HeadPlan(Shown, Document):
    """The pattern of every head of one model; print it to see the map.

    Attributes:
        model: for which the plan was decided.
        sinks: which tokens are sinks, and the diagonal block.
        patterns: one for each head of each layer of the text tower.
        kv_groups: whether the heads that share keys were decided together, and so agree.
        decision: how the patterns were chosen.
        calibration: what they were chosen from; None by hand.
        provenance: who made it.
    """

    schema_version: Literal[1] = 1
    model: ModelIdentity
    sinks: SinkRule
    patterns: tuple[tuple[LabelledPattern, ...], ...]
    kv_groups: bool = False
    decision: Annotated[HandDecision | BudgetDecision | VoteDecision, Field(discriminator="rule")]
    calibration: CalibrationSummary | None = None
    provenance: Provenance = Field(default_factory=Provenance.here)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Holds that every head has a pattern, and that groups agree where they should."""
        model = self.model
        if len(self.patterns) != model.layers:
            raise ValueError(
                f"patterns of {len(self.patterns)} layers, the model has {model.layers}"
            )
        for layer, row in enumerate(self.patterns):
            if len(row) != model.heads:
                raise ValueError(
                    f"layer {layer}: patterns of {len(row)} heads, the model has {model.heads}"
                )
            group = model.heads // model.kv_heads
            for first in range(0, model.heads, group) if self.kv_groups else ():
                if len(set(row[first : first + group])) > 1:
                    raise ValueError(
                        f"layer {layer}: heads {first} to {first + group - 1} share keys but not "
                        "a pattern, in a plan that says kv_groups"
                    )
        return self

    @classmethod
    def uniform(cls, model: Any, pattern: Pattern, sinks: SinkRule | None = None) -> HeadPlan:
        """Makes a plan by hand: the same pattern for every head.

        Args:
            model: of transformers, or its `ModelIdentity`.
            pattern: of every head.
            sinks: which tokens are sinks; the usual ones unless given.

        Raises:
            UsageError: not a model of transformers with a text tower.
        """
        identity = model if isinstance(model, ModelIdentity) else identify(model)
        row = (pattern,) * identity.heads
        return cls(
            model=identity,
            sinks=sinks or SinkRule(),
            patterns=(row,) * identity.layers,
            kv_groups=True,
            decision=HandDecision(),
        )

    def with_patterns(self, patterns: Sequence[Sequence[Pattern]]) -> HeadPlan:
        """Returns a plan by hand for the same model with other patterns, `[layers][heads]`.

        Raises:
            UsageError: a head has no pattern, or too many have one.
        """
        try:
            return HeadPlan(
                model=self.model,
                sinks=self.sinks,
                patterns=tuple(map(tuple, patterns)),
                decision=HandDecision(),
            )
        except ValueError as error:
            raise UsageError(f"the patterns do not fit the model: {error}") from error

    def content_hash(self) -> str:
        """Returns the SHA-256 of the plan in canonical form, without provenance."""
        body = self.model_dump(mode="json", exclude={"provenance", "content_sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes the plan as JSON with its content hash.

        Raises:
            ExportError: the disk refused it.
        """
        fields = {name: getattr(self, name) for name in HeadPlan.model_fields}
        write_file(path, _SavedPlan(**fields, content_sha256=self.content_hash()).render().encode())

    @classmethod
    def load(cls, path: Path) -> HeadPlan:
        """Reads what `save` wrote.

        Raises:
            DocumentError: the file is absent, truncated, altered, of another schema, or holds
                unknown fields or too few patterns.
        """
        saved = _SavedPlan.parse(read_text(path), str(path))
        if saved.content_hash() != saved.content_sha256:
            raise DocumentError(
                f"{path}: field content_sha256: the plan was altered after it was saved; "
                f"it hashes to {saved.content_hash()[:12]}…, the file says "
                f"{saved.content_sha256[:12]}…; plan again, or use HeadPlan.with_patterns for a "
                "plan by hand"
            )
        return HeadPlan(**{name: getattr(saved, name) for name in HeadPlan.model_fields})

    def check(self, model: Any) -> None:
        """Holds that the plan was decided for a model, its architecture and its weights.

        Args:
            model: of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: another architecture, other weights or another revision.
        """
        self.model.check(model, "the plan", "Calibrate this model and plan again")

    def count(self, pattern: Pattern) -> int:
        """Returns how many heads have a pattern."""
        return sum(row.count(pattern) for row in self.patterns)

    def shown(self) -> Table:
        """Returns the map: a row for each layer, a character for each head."""
        model, counts = self.model, Counter(head for row in self.patterns for head in row)
        total = model.layers * model.heads
        gap = model.heads // model.kv_heads
        title = (
            f"head plan of {model.model_type}, {model.layers} layers x {model.heads} heads "
            f"({model.kv_heads} kv), weights {model.fingerprint[:12]}"
        )
        rows = [("layer", "heads")]
        for layer, row in enumerate(self.patterns):
            marks = "".join(pattern.mark for pattern in row)
            groups = [marks[place : place + gap] for place in range(0, model.heads, gap)]
            rows.append((str(layer), " ".join(groups) if gap > 1 else marks))
        legend = (
            f"{pattern.mark} {pattern.label} {counts[pattern]} ({counts[pattern] / total:.0%})"
            for pattern in Pattern
        )
        together = ", kv groups together" if self.kv_groups else ""
        notes = [", ".join(legend), self.decision.describe() + together]
        if self.calibration is not None:
            found = self.calibration
            notes.append(
                f"density {found.density:.3f} on {found.prompts} prompts of "
                f"{found.fewest_images} to {found.most_images} images"
            )
        return Table(title, rows, notes)


class _SavedPlan(HeadPlan):
    """A plan as it stands in a file."""

    content_sha256: str

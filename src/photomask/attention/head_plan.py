"""Head plans: one pattern for every attention head of one model, frozen in a file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from photomask.attention.identity import ModelIdentity, identify
from photomask.attention.patterns import LabelledPattern, Pattern, SinkRule
from photomask.attention.plan_records import (
    AnyDecision,
    CalibrationSummary,
    HandDecision,
    Provenance,
)
from photomask.attention.plan_sharing import SharedPlan
from photomask.documents import Document, read_text, write_file
from photomask.errors import DocumentError, PlanError, UsageError
from photomask.report import Shown, Table


class HeadPlan(Shown, SharedPlan, Document):
    """The pattern of every head of one model. `print(plan)` shows them as a map.

    Attributes:
        model: the identity of the model for which the plan was decided.
        sinks: the rule that says which tokens are sinks and how long a diagonal block is.
        patterns: one pattern for each head of each layer of the text tower.
        kv_groups: whether the heads that share keys were decided together, so that they agree.
        decision: how the patterns were chosen.
        calibration: a summary of the calibration; None for a plan that was made by hand.
        provenance: the versions and the date with which the plan was made.
        decided_for: the identity of the model for which the patterns were decided, if `rebase` gave
            the plan to other weights; otherwise None.
        schema_version: 2 if `decided_for` is there, otherwise 1, so that older versions of
            Photomask read the plan.
    """

    schema_version: Literal[1, 2] = 1
    model: ModelIdentity
    sinks: SinkRule
    patterns: tuple[tuple[LabelledPattern, ...], ...]
    kv_groups: bool = False
    decision: Annotated[AnyDecision, Field(discriminator="rule")]
    calibration: CalibrationSummary | None = None
    provenance: Provenance = Field(default_factory=Provenance.here)
    decided_for: ModelIdentity | None = None

    @model_validator(mode="after")
    def _versioned(self) -> Self:
        """Checks that the version says whether the plan was rebased."""
        if (self.schema_version == 2) != (self.decided_for is not None):
            raise ValueError(
                "schema_version is 2 in a plan with the field decided_for, and 1 in any other plan"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves `decided_for` out of plans of version 1, which have no such field."""
        fields: dict[str, Any] = write(self)
        if self.decided_for is None:
            fields.pop("decided_for", None)
        return fields

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Checks that every head has a pattern, and that groups agree if `kv_groups` says so."""
        model = self.model
        if len(self.patterns) != model.layers:
            raise ValueError(
                f"there are patterns of {len(self.patterns)} layers, but the model has "
                f"{model.layers} layers"
            )
        for layer, row in enumerate(self.patterns):
            if len(row) != model.heads:
                raise ValueError(
                    f"layer {layer}: there are patterns of {len(row)} heads, but the model has "
                    f"{model.heads} heads"
                )
            group = model.heads // model.kv_heads
            for first in range(0, model.heads, group) if self.kv_groups else ():
                if len(set(row[first : first + group])) > 1:
                    raise ValueError(
                        f"layer {layer}: heads {first} to {first + group - 1} share keys, but "
                        "their patterns differ in a plan with kv_groups = true"
                    )
        return self

    @classmethod
    def uniform(cls, model: Any, pattern: Pattern, sinks: SinkRule | None = None) -> HeadPlan:
        """Returns a plan by hand that gives every head the same pattern.

        Args:
            model: a model of transformers, or its `ModelIdentity`.
            pattern: the pattern of every head.
            sinks: the rule that says which tokens are sinks; the default rule unless given.

        Raises:
            UsageError: `model` is not a model of transformers with a text tower.
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
        """Returns a plan by hand for the same model, with other patterns.

        Args:
            patterns: the patterns, `[layers][heads]`.

        Raises:
            UsageError: the number of layers or of heads differs from the model's.
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

    def rebase(self, model: Any) -> HeadPlan:
        """Returns this plan for other weights of the same architecture, as it was decided.

        It is for quantized weights, for weights with a merged adapter (LoRA), and for fine-tuned
        ones. Nothing is measured, so run `photomask.attention.verify` with the model and the new
        plan: that shows whether the answers are still right. The patterns, the decision and the
        calibration stay, and `decided_for` names the model that they come from.

        Args:
            model: a model of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: the model has another architecture.
            UsageError: `model` is no model of transformers with a text tower, a weight is not
                loaded, or a quantized weight cannot be read.
        """
        identity = model if isinstance(model, ModelIdentity) else identify(model)
        weights = {"fingerprint": identity.fingerprint}
        differences = self.model.model_copy(update=weights).differences(identity)
        if differences:
            raise PlanError(
                "the plan cannot be rebased, because the model has another architecture (the value "
                f"of the plan first, then the model's): {'; '.join(differences)}. Calibrate this "
                "model and plan again"
            )
        origin = self.decided_for or self.model
        decided_for = None if origin == identity else origin
        version = 1 if decided_for is None else 2
        fields: dict[str, Any] = {name: getattr(self, name) for name in HeadPlan.model_fields}
        fields |= {"schema_version": version, "model": identity, "decided_for": decided_for}
        return HeadPlan(**fields)

    def content_hash(self) -> str:
        """Returns the SHA-256 of the plan in canonical form, without its provenance."""
        body = self.model_dump(mode="json", exclude={"provenance", "content_sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes the plan as JSON with its content hash.

        Raises:
            ExportError: the file cannot be written.
        """
        write_file(path, self.rendered_file())

    def rendered_file(self) -> bytes:
        """Returns the plan as the JSON of a plan file."""
        fields = {name: getattr(self, name) for name in HeadPlan.model_fields}
        return _SavedPlan(**fields, content_sha256=self.content_hash()).render().encode()

    @classmethod
    def load(cls, path: Path) -> HeadPlan:
        """Reads a plan that `save` wrote.

        Raises:
            DocumentError: the file is absent, truncated, altered or of another schema, or it has
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
        """Checks that the plan was decided for a model: for its architecture and its weights.

        Args:
            model: a model of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: the model has another architecture, other weights or another revision.
        """
        remedy = (
            "Calibrate this model and plan again. If these are quantized, merged or fine-tuned "
            "weights of the same model, plan.rebase(model) keeps the plan for them, and a "
            "verification shows whether it still holds"
        )
        self.model.check(model, "the plan", remedy)

    def count(self, pattern: Pattern) -> int:
        """Returns the number of heads that have a pattern."""
        return sum(row.count(pattern) for row in self.patterns)

    def shown(self) -> Table:
        """Returns the plan as a table with a row for each layer and a character for each head."""
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
        if self.decided_for is not None:
            notes.append(f"decided for weights {self.decided_for.fingerprint[:12]}, then rebased")
        if self.calibration is not None:
            found = self.calibration
            notes.append(
                f"density {found.density:.3f} on {found.prompts} prompts of "
                f"{found.fewest_images} to {found.most_images} images"
            )
        return Table(title, rows, notes)


class _SavedPlan(HeadPlan):
    """A plan with its content hash, as it is saved in a file."""

    content_sha256: str

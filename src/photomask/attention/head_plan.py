"""Head plans: one pattern for every attention head of one model, frozen in a file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from photomask.attention.identity import ModelIdentity, identify
from photomask.attention.patterns import LabelledPattern, Pattern, SinkRule
from photomask.attention.plan_card import (
    CARD_FILE,
    PLAN_FILE,
    MeasuredPlan,
    Origin,
    is_untouched_card,
    render_card,
)
from photomask.attention.plan_records import (
    AnyDecision,
    CalibrationSummary,
    HandDecision,
    Provenance,
)
from photomask.documents import Document, is_file, is_folder, read_text, write_file
from photomask.errors import DocumentError, ExportError, PlanError, UsageError
from photomask.hub import fetch_file, is_hub_name, send_files
from photomask.report import Shown, Table

_LOGGER = logging.getLogger(__name__)


class HeadPlan(Shown, Document):
    """The pattern of every head of one model. `print(plan)` shows them as a map.

    Attributes:
        model: the identity of the model for which the plan was decided.
        sinks: the rule that says which tokens are sinks and how long a diagonal block is.
        patterns: one pattern for each head of each layer of the text tower.
        kv_groups: whether the heads that share keys were decided together, so that they agree.
        decision: how the patterns were chosen.
        calibration: a summary of the calibration; None for a plan that was made by hand.
        provenance: the versions and the date with which the plan was made.
    """

    schema_version: Literal[1] = 1
    model: ModelIdentity
    sinks: SinkRule
    patterns: tuple[tuple[LabelledPattern, ...], ...]
    kv_groups: bool = False
    decision: Annotated[AnyDecision, Field(discriminator="rule")]
    calibration: CalibrationSummary | None = None
    provenance: Provenance = Field(default_factory=Provenance.here)

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

    def content_hash(self) -> str:
        """Returns the SHA-256 of the plan in canonical form, without its provenance."""
        body = self.model_dump(mode="json", exclude={"provenance", "content_sha256"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes the plan as JSON with its content hash.

        Raises:
            ExportError: the file cannot be written.
        """
        write_file(path, self._rendered())

    def _rendered(self) -> bytes:
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

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        base_model: str | None = None,
        base_revision: str | None = None,
        license: str | None = None,
        report: MeasuredPlan | None = None,
    ) -> None:
        """Writes the plan as `head_plan.json`, and a card about it as `README.md`, into a folder.

        An earlier plan and its card are replaced. A README.md that is not such a card, or that was
        edited, stays as it is, and a line of the log says so.

        Args:
            folder: the folder, which may hold other files; it is created if there is none.
            base_model: the name of the model on the hub, for the card.
            base_revision: the branch, tag or commit of the model, for the card.
            license: the license of the plan, by the identifier of the hub, such as `apache-2.0`.
            report: the report of `verify` on this plan. The card states the measured loss.

        Raises:
            UsageError: `base_model` cannot be the name of a repository.
            PlanError: the report is about another plan.
            ExportError: a file cannot be written, or `head_plan.json` is there and is no plan.
        """
        files = self._files(str(folder), Origin(base_model, base_revision, license), report)
        chosen = {
            name: content
            for name, content in files.items()
            if not (Path(folder) / name).exists() or _may_replace(name, Path(folder) / name)
        }
        for name, content in chosen.items():
            write_file(Path(folder) / name, content)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        base_model: str | None = None,
        base_revision: str | None = None,
        license: str | None = None,
        report: MeasuredPlan | None = None,
    ) -> str:
        """Sends the plan and a card about it to a repository on the Hugging Face hub.

        The repository is created if there is none, and its other files stay as they are. Which
        files are replaced is the same as for `save_pretrained`. Log in first with `hf auth login`.

        Args:
            name: the name of the repository, `owner/name`.
            private: whether a repository that is created is private; None for the default of its
                owner.
            base_model: as for `save_pretrained`, like the arguments below.
            base_revision: the branch, tag or commit of the model.
            license: the license of the plan.
            report: the report of `verify` on this plan.

        Returns:
            The address of the commit.

        Raises:
            UsageError: a name cannot be the name of a repository.
            PlanError: the report is about another plan.
            ExportError: the hub refuses the files or cannot be reached, or the repository holds a
                `head_plan.json` that is no plan.
            MissingDependencyError: huggingface_hub is not installed.
        """
        return send_files(
            name,
            self._files(name, Origin(base_model, base_revision, license), report),
            private=private,
            message="Add a head plan of Photomask",
            may_replace=_may_replace,
        )

    def _files(self, place: str, origin: Origin, report: MeasuredPlan | None) -> dict[str, bytes]:
        """Returns the plan and its card, by the names of their files.

        Raises:
            PlanError: the report is about another plan.
        """
        if report is not None and report.plan.content_hash() != self.content_hash():
            raise PlanError(
                f"the report is about the plan {report.plan.content_hash()[:12]}…, but this plan "
                f"is {self.content_hash()[:12]}…; verify this plan"
            )
        return {PLAN_FILE: self._rendered(), CARD_FILE: render_card(self, place, origin, report)}

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> HeadPlan:
        """Reads a plan from a file, a folder or the Hugging Face hub.

        A file or a folder that exists is read, and the network is not used. Only a name of a
        repository for which there is no file or folder is looked up on the hub.

        Args:
            source: a file that `save` wrote, a folder with `head_plan.json`, or the name of a
                repository on the hub, `owner/name`.
            revision: the branch, tag or commit of the repository on the hub.

        Raises:
            UsageError: there is no such file, folder or repository, or it may not be read.
            DocumentError: the plan is truncated, altered or of another schema.
            MissingDependencyError: huggingface_hub is not installed.
        """
        is_local = is_file(source) or is_folder(source)
        if is_local and revision is not None:
            raise UsageError(
                f"{source} is on this machine, and only plans on the hub have revisions"
            )
        if is_local:
            return cls.load(Path(source) / PLAN_FILE if is_folder(source) else Path(source))
        if not is_hub_name(str(source)):
            raise UsageError(
                f"no plan {str(source)!r}: expected a plan file, a folder with {PLAN_FILE}, or the "
                "name of a repository on the hub"
            )
        return cls.load(fetch_file(str(source), PLAN_FILE, revision))

    def check(self, model: Any) -> None:
        """Checks that the plan was decided for a model: for its architecture and its weights.

        Args:
            model: a model of transformers, or its `ModelIdentity`.

        Raises:
            PlanError: the model has another architecture, other weights or another revision.
        """
        self.model.check(model, "the plan", "Calibrate this model and plan again")

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


def _may_replace(name: str, path: Path) -> bool:
    """Returns whether a file that is already there may be replaced by one of this name.

    Args:
        name: `head_plan.json` or `README.md`.
        path: the file that is already there, or a copy of it.

    Raises:
        ExportError: it has the name of a plan, but it is none.
    """
    if name == PLAN_FILE:
        try:
            HeadPlan.load(path)
        except DocumentError as error:
            raise ExportError(
                f"{name} is already there and is no plan, so it is not replaced: {error}"
            ) from error
        return True
    try:
        is_ours = is_untouched_card(read_text(path))
    except DocumentError:
        is_ours = False
    if not is_ours:
        _LOGGER.warning("%s is already there and was not written by Photomask; it is kept", name)
    return is_ours

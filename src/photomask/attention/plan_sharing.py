"""Shares plans: writes them with a card into folders and to the hub, and reads them from there."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self, cast

from photomask.attention.plan_card import (
    CARD_FILE,
    PLAN_FILE,
    MeasuredPlan,
    Origin,
    PlanFacts,
    is_untouched_card,
    render_card,
)
from photomask.documents import is_file, is_folder, read_text, write_file
from photomask.errors import DocumentError, ExportError, PlanError, UsageError
from photomask.hub import fetch_file, is_hub_name, send_files

_LOGGER = logging.getLogger(__name__)


class SharedPlan(ABC):
    """The part of a `HeadPlan` that deals with folders and the hub."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Reads a plan from a file."""

    @abstractmethod
    def content_hash(self) -> str:
        """Returns the SHA-256 of the plan."""

    @abstractmethod
    def rendered_file(self) -> bytes:
        """Returns the content of a plan file."""

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
            if not (Path(folder) / name).exists() or self._may_replace(name, Path(folder) / name)
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
            may_replace=self._may_replace,
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
        return {
            PLAN_FILE: self.rendered_file(),
            CARD_FILE: render_card(cast(PlanFacts, self), place, origin, report),
        }

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
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

    @classmethod
    def _may_replace(cls, name: str, path: Path) -> bool:
        """Returns whether a file that is already there may be replaced by one of this name.

        Args:
            name: `head_plan.json` or `README.md`.
            path: the file that is already there, or a copy of it.

        Raises:
            ExportError: it has the name of a plan, but it is none.
        """
        if name == PLAN_FILE:
            try:
                cls.load(path)
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
            _LOGGER.warning(
                "%s is already there and was not written by Photomask; it is kept", name
            )
        return is_ours

"""Strict, versioned JSON documents: targets, recipes, programs, manifests, reports.

A document refuses unknown fields, converts no types silently and never changes after it is made.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from photomask.errors import DocumentError, ExportError


class Document(BaseModel):
    """Base of everything that is saved as JSON: frozen, typed, no unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )

    @classmethod
    def parse(cls, text: str | bytes, origin: str) -> Self:
        """Reads a document.

        Args:
            text: JSON.
            origin: where the text came from; named in errors.

        Raises:
            DocumentError: not JSON, a field missing, unknown or of the wrong type.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DocumentError(f"{origin}: {describe_validation(error)}") from error

    def render(self) -> str:
        """Returns the document as indented JSON that ends with a newline."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns one line a row, columns padded to line up, for what `print` shows as a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def describe_validation(error: ValidationError) -> str:
    """Says in one line which fields are wrong and what was found there."""
    problems = [
        f"field {'.'.join(map(str, problem['loc'])) or '(document)'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False)
    ]
    return "; ".join(problems[:8]) + ("; …" if len(problems) > 8 else "")


def read_text(path: Path) -> str:
    """Reads a UTF-8 file.

    Raises:
        DocumentError: the file is absent, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot read {path}: {error}") from error


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all; an earlier one is replaced.

    Raises:
        ExportError: the disk refused it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error


@contextmanager
def written_whole(destination: Path, owner: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields an empty folder beside `destination` that takes its place only when all is written.

    After an error, or a kill while the folder is being written, `destination` is what it was
    before. Replacing an earlier output takes two renames: a kill between them leaves that output
    whole, in a folder beside it whose name starts with `.NAME.old.`.

    Args:
        destination: the folder to appear, or to be replaced.
        owner: tells of an existing, non-empty `destination` whether it is an earlier output of the
            same kind, and so may be replaced.

    Raises:
        ExportError: the destination is something else's, or the disk refused a file.
    """
    destination = Path(os.path.abspath(destination))
    if destination.exists() and not destination.is_dir():
        raise ExportError(f"{destination} is a file; choose a folder")
    if destination.is_dir() and any(destination.iterdir()) and not owner(destination):
        raise ExportError(
            f"{destination} is not empty and is not an earlier output of this command; "
            "choose another folder or remove it"
        )
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise ExportError(f"cannot write to {destination.parent}: {error}") from error
    try:
        staging.chmod(0o755)
        yield staging
        _replace_folder(staging, destination)
    except OSError as error:
        raise ExportError(f"cannot write {destination}: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_folder(staging: Path, destination: Path) -> None:
    """Renames `staging` to `destination`; an old folder is moved aside first, then removed."""
    retired = None
    if destination.exists():
        retired = Path(tempfile.mkdtemp(prefix=f".{destination.name}.old.", dir=staging.parent))
        os.replace(destination, retired / destination.name)
    try:
        os.replace(staging, destination)
    except OSError:
        if retired is not None:
            os.replace(retired / destination.name, destination)
            retired.rmdir()
        raise
    if retired is not None:
        shutil.rmtree(retired, ignore_errors=True)

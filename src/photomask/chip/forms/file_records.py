"""The record of an exported file: its path, its size and its hash."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator

from photomask.documents import Document, sha256_of


class FileRecord(Document):
    """One file of an export."""

    path: str
    """The path relative to the export, with forward slashes. It never leads outside the export."""
    bytes: int = Field(default=0, ge=0)
    sha256: str = ""

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.split("/")
        if not all(parts) or {".", ".."} & {*parts} or "\\" in path or "\0" in path:
            raise ValueError(f"{path!r} is not a path inside the export")
        return path

    @classmethod
    def of(cls, folder: Path, path: str) -> Self:
        """Returns the record of a file that was already written.

        Args:
            folder: the export.
            path: the file's path, relative to the export.
        """
        file = folder / path
        return cls(path=path, bytes=file.stat().st_size, sha256=sha256_of(file))

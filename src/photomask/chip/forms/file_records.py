"""What an export says of each of its files: how large it is, and its hash."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator

from photomask.documents import Document, sha256_of


class FileRecord(Document):
    """A file of an export."""

    path: str
    """Relative to the export, with forward slashes; never outside of it."""
    bytes: int = Field(default=0, ge=0)
    sha256: str = ""

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.split("/")
        if not all(parts) or {".", ".."} & {*parts} or "\\" in path or "\0" in path:
            raise ValueError(f"{path!r} is no path inside the export")
        return path

    @classmethod
    def of(cls, folder: Path, path: str) -> Self:
        """Returns the record of a file that was written.

        Args:
            folder: the export.
            path: of the file, relative to it.
        """
        file = folder / path
        return cls(path=path, bytes=file.stat().st_size, sha256=sha256_of(file))

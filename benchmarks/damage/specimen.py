"""What a kind of file is to the benchmark: how it is read, and what its bytes say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photomask.errors import PhotomaskError

Files = Mapping[str, bytes]
"""The bytes of a specimen's files, by relative path."""


class RefusedError(PhotomaskError):
    """A report, not an error, refused the files."""


class WrongError(Exception):
    """A reader accepted what it should have refused, or loaded something else."""


class AmbiguousError(WrongError):
    """The bytes say two things at once, or nothing at all."""


def unchecked(loaded: Any, files: Files) -> None:
    """Stands where comparing what was loaded with the bytes is all that there is to check."""


def unrepaired(files: Files) -> Files:
    """Stands where a kind of file holds no hash."""
    return files


@dataclass(frozen=True)
class Kind:
    """A kind of file and its oracle.

    Attributes:
        name: of the kind.
        read: reads a folder of files through the public entry point.
        held: what was loaded, as plain values; see `plain.difference`.
        said: what the bytes say, found without the package, in the same form.
        repair: computes every hash anew, without the package.
        use: holds what was loaded against promises that a valid file keeps; raises `WrongError`.
        sealed: whether every file is hashed, so that damage whose hashes were not repaired may
            not change what the files say.
        unhashed: fields that no hash covers, by design.
        fixed: files that are never damaged.
        weight: how often the kind is drawn; slow readers less often.
    """

    name: str
    read: Callable[[Path], Any]
    held: Callable[[Any], Any]
    said: Callable[[Files], Any]
    repair: Callable[[Files], Files] = unrepaired
    use: Callable[[Any, Files], None] = unchecked
    sealed: bool = False
    unhashed: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    weight: int = 4


@dataclass(frozen=True)
class Specimen:
    """Good files of a kind."""

    kind: str
    files: Files

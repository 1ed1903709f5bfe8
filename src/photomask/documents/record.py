"""The record of an output: what Photomask wrote into a folder, so that it deletes nothing else."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from photomask.documents.document import Document
from photomask.documents.reading import is_file, read_text, sha256_of
from photomask.errors import DocumentError, ExportError

RECORD_FILE = ".photomask.json"
"""The record, at the top of every folder that Photomask writes as a whole."""

WORK_NAME = re.compile(r"\..+\.photomask-[0-9a-f]{16}", re.DOTALL)
"""What is being written; see `writing`."""

OLD = "old"

SHOWN = 6
"""How many foreign files an error names."""

Earlier = Callable[[Path], Collection[str]]
"""From a folder without a record to the files that its own manifest proves to be Photomask's."""


class OutputRecord(Document):
    """What an output consists of.

    Attributes:
        output: the kind of output, in words.
        files: size and SHA-256 of every file but the record, by path with forward slashes.
        folders: every folder inside, by path.
    """

    schema_version: Literal[1] = 1
    kind: Literal["photomask output"] = "photomask output"
    output: str
    files: dict[str, tuple[int, str]]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, output: str) -> "OutputRecord":
        """Describes a folder that was just written.

        Raises:
            OSError: the disk refused it.
        """
        paths = sorted(folder.rglob("*"))
        return cls(
            output=output,
            files={
                path.relative_to(folder).as_posix(): mark_of(path)
                for path in paths
                if path.is_file()
            },
            folders=tuple(path.relative_to(folder).as_posix() for path in paths if path.is_dir()),
        )

    @classmethod
    def load(cls, folder: Path) -> "OutputRecord | None":
        """Reads the record of a folder; None where there is none that can be read."""
        if not is_file(folder / RECORD_FILE):
            return None
        try:
            return cls.parse(read_text(folder / RECORD_FILE), str(folder / RECORD_FILE))
        except DocumentError:
            return None

    def with_file(self, folder: Path, path: Path) -> "OutputRecord":
        """Returns the record with one more file of the folder, or a new version of one."""
        name = path.relative_to(folder).as_posix()
        return self.model_copy(update={"files": {**self.files, name: mark_of(path)}})


def mark_of(path: Path, expected: int | None = None) -> tuple[int, str]:
    """Returns the size and the SHA-256 of a file; no hash where its size is not `expected`."""
    size = path.stat().st_size
    return size, sha256_of(path) if expected in (None, size) else ""


def refuse_foreign(folder: Path, output: str, earlier: Earlier) -> None:
    """Holds that an earlier output of the same kind wrote everything that a folder holds.

    A file that was changed since is its user's. Folders inside that have a record of their own,
    such as a C project in an export, are judged by it.

    Args:
        folder: to be replaced; may be absent or empty.
        output: the kind of output.
        earlier: tells what an output of a version without records consists of.

    Raises:
        ExportError: the folder is something else's; names what Photomask did not write there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is a file; choose a folder")
    if not any(folder.iterdir()):
        return
    record = OutputRecord.load(folder)
    if record is None:
        files = earlier(folder)
        if not files:
            raise ExportError(
                f"{folder} is not empty and is not an earlier output of this command; "
                "choose another folder, or move what it holds"
            )
        parts = {str(parent.as_posix()) for name in files for parent in Path(name).parents}
        record = OutputRecord(
            output=output,
            files={name: mark_of(folder / name) for name in files if is_file(folder / name)},
            folders=tuple(parts),
        )
    if record.output != output:
        raise ExportError(
            f"{folder} holds another kind of output ({record.output}, not {output}); "
            "choose another folder, or remove it"
        )
    if found := _foreign(folder, record, ""):
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ExportError(
            f"{folder} holds what Photomask did not write there: {', '.join(found[:SHOWN])}{more}. "
            "Nothing was deleted: move these files, or choose another folder"
        )


def _foreign(folder: Path, record: OutputRecord, prefix: str) -> list[str]:
    """Returns what a folder holds that is not in its record, or not as it was recorded.

    Args:
        folder: with the record, or below the folder with the record.
        record: what was written.
        prefix: of the folder's path in the record.
    """
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path, name = folder / entry.name, prefix + entry.name
        if entry.is_symlink():
            found.append(f"{name} (a symbolic link)")
        elif entry.is_dir():
            found += _foreign_below(path, record, name)
        elif name == RECORD_FILE or WORK_NAME.fullmatch(entry.name):
            continue
        elif name not in record.files:
            found.append(name)
        elif not is_file(path) or mark_of(path, record.files[name][0]) != record.files[name]:
            found.append(f"{name} (changed since)")
    return found


def _foreign_below(folder: Path, record: OutputRecord, name: str) -> list[str]:
    """Judges a folder in an output: by its own record, where it is an output of its own."""
    if WORK_NAME.fullmatch(folder.name):  # a killed writer's: only the output it moved aside counts
        return _foreign_below(folder / OLD, record, name) if (folder / OLD).is_dir() else []
    own = OutputRecord.load(folder)
    if own is not None:
        return [f"{name}/{part}" for part in _foreign(folder, own, "")]
    return _foreign(folder, record, f"{name}/") if name in record.folders else [f"{name}/"]

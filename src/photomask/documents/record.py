"""The record of the files that Photomask wrote into a folder, so that it deletes no other file."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from photomask.documents.document import Document
from photomask.documents.reading import is_file, read_text, sha256_of
from photomask.errors import DocumentError, ExportError

RECORD_FILE = ".photomask.json"
"""The name of the record, which is at the top of every folder that Photomask writes as a whole."""

WORK_NAME = re.compile(r"\..+\.photomask-[0-9a-f]{16}", re.DOTALL)
"""The names of work folders and drafts, which hold an unfinished output; see `writing`."""

OLD = "old"

SHOWN = 6
"""The number of foreign files that an error names."""

Earlier = Callable[[Path], Collection[str]]
"""A function that returns the files of a folder without a record that are proven, by the folder's
own manifest, to be an output of Photomask."""


class OutputRecord(Document):
    """The files and folders of an output.

    Attributes:
        output: the kind of output, in words.
        files: the size and the SHA-256 of every file except the record, by its path with forward
            slashes.
        folders: the paths of all folders inside.
    """

    schema_version: Literal[1] = 1
    kind: Literal["photomask output"] = "photomask output"
    output: str
    files: dict[str, tuple[int, str]]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, output: str) -> "OutputRecord":
        """Returns the record of a folder that was just written.

        Raises:
            OSError: a file cannot be read.
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
        """Reads the record of a folder. The result is None if there is no readable record."""
        if not is_file(folder / RECORD_FILE):
            return None
        try:
            return cls.parse(read_text(folder / RECORD_FILE), str(folder / RECORD_FILE))
        except DocumentError:
            return None

    def with_file(self, folder: Path, path: Path) -> "OutputRecord":
        """Returns the record with one more file of the folder, or with a new version of a file."""
        name = path.relative_to(folder).as_posix()
        return self.model_copy(update={"files": {**self.files, name: mark_of(path)}})


def mark_of(path: Path, expected: int | None = None) -> tuple[int, str]:
    """Returns the size and the SHA-256 of a file. The hash is empty if the size is unexpected."""
    size = path.stat().st_size
    return size, sha256_of(path) if expected in (None, size) else ""


def refuse_foreign(folder: Path, output: str, earlier: Earlier) -> None:
    """Checks that an earlier output of the same kind wrote everything that a folder holds.

    A file that was changed later counts as a file of the user. A folder inside that has its own
    record, such as a C project in an export, is checked against that record.

    Args:
        folder: the folder to be replaced. It may be absent or empty.
        output: the kind of output.
        earlier: a function that returns the files of an output of a version without records.

    Raises:
        ExportError: the folder holds something else. The error names files that Photomask did not
            write there.
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
                "choose another folder, or move its files elsewhere"
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
            f"{folder} holds files that Photomask did not write there: "
            f"{', '.join(found[:SHOWN])}{more}. Nothing was deleted: move these files, or choose "
            "another folder"
        )


def _foreign(folder: Path, record: OutputRecord, prefix: str) -> list[str]:
    """Returns the entries of a folder that are not in its record or that were changed later.

    Args:
        folder: the folder with the record, or a folder inside it.
        record: the record of the files that were written.
        prefix: the path of the folder in the record, with a slash at its end, or an empty text.
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
    """Returns the foreign entries of a folder inside an output, by its own record if it has one."""
    # A killed process left this work folder. Only the output that it moved aside is of interest.
    if WORK_NAME.fullmatch(folder.name):
        return _foreign_below(folder / OLD, record, name) if (folder / OLD).is_dir() else []
    own = OutputRecord.load(folder)
    if own is not None:
        return [f"{name}/{part}" for part in _foreign(folder, own, "")]
    return _foreign(folder, record, f"{name}/") if name in record.folders else [f"{name}/"]

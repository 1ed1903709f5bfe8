"""Files and folders that appear whole or not at all, and take nothing of the user's place.

A folder is written beside its destination, in a work folder `.NAME.photomask-<16 hex digits>`, and
takes its place by two renames::

    .NAME.photomask-…/new     what is being written
    .NAME.photomask-…/old     the earlier output, between the two renames
    .NAME.photomask-…/done    the earlier output, when the new one stands in its place

The process that writes holds a lock on its work folder. A work folder without one is what a killed
process left: the next output to the same destination puts `old` back where nothing stands in its
place, and removes the rest.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from photomask.documents.record import (
    OLD,
    RECORD_FILE,
    WORK_NAME,
    Earlier,
    OutputRecord,
    refuse_foreign,
)
from photomask.errors import DocumentError, ExportError

NEW, DONE = "new", "done"
LONGEST_STEM = 200
"""Bytes of a destination's name that its work folder repeats; most file systems allow 255."""
LOCK_SECONDS = 60.0
"""How long to wait while another process renames in the same folder, which takes milliseconds."""


def _nothing(_: Path) -> tuple[str, ...]:
    """Says that no earlier version wrote such an output without a record."""
    return ()


@contextmanager
def written_whole(destination: Path, output: str, earlier: Earlier = _nothing) -> Iterator[Path]:
    """Yields an empty folder beside `destination` that takes its place only when all is written.

    After an error, or a kill while the folder is being written, `destination` is what it was
    before. A kill between the two renames that replace an earlier output leaves that output beside
    it; the next output to the same destination puts it back first. A destination that is a
    symbolic link stays one: what it points to is replaced.

    Args:
        destination: the folder to appear, or to be replaced. It is replaced only if an earlier
            output of the same kind wrote everything in it, and nothing was changed since.
        output: the kind of output, in words, such as "chip export"; goes into the record.
        earlier: tells which files of a folder without a record are proven to be an earlier
            version's output of this kind, by a manifest of its own; none where left out.

    Raises:
        ExportError: the destination holds something else, or the disk refused a file.
    """
    try:
        place = Path(os.path.realpath(destination))
        if not place.name:
            raise ExportError(f"{destination} is the root of the file system; choose a folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.parent) as is_locked:
            if is_locked:
                _clear(place)
            refuse_foreign(place, output, earlier)
            work, lock = _new_work_folder(place)
    except (OSError, ValueError, DocumentError) as error:
        raise ExportError(f"cannot write {destination}: {error}") from error
    try:
        try:
            yield work / NEW
            record = OutputRecord.of(work / NEW, output).render()
            (work / NEW / RECORD_FILE).write_text(record, encoding="utf-8")
            with _locked(place.parent):
                refuse_foreign(place, output, earlier)
                _replace(place, work)
        finally:
            _settle(place, work)
    except OSError as error:
        raise ExportError(f"cannot write {destination}: {error}") from error
    finally:
        os.close(lock)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all; an earlier one is replaced.

    A symbolic link stays one, and a file keeps its permissions. A device or a pipe gets the bytes.
    In a folder that Photomask wrote, the file is added to the folder's record.

    Raises:
        ExportError: the path is a folder, or the disk refused it.
    """
    try:
        earlier = _status(path)
        if earlier is not None and not stat.S_ISREG(earlier.st_mode):
            _write_into(path, content)
            return
        if earlier is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it may not be written")
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        _write_beside(place, content, earlier)
        _note(place)
    except (OSError, ValueError, DocumentError) as error:
        raise ExportError(f"cannot write {path}: {error}") from error


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _write_into(path: Path, content: bytes) -> None:
    """Writes to a device or a pipe; a pipe without a reader is an error, not a wait."""
    handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _write_beside(place: Path, content: bytes, earlier: os.stat_result | None) -> None:
    """Writes a file under another name in the same folder and renames it."""
    with _locked(place.parent) as is_locked:
        if is_locked:
            _clear(place)
        draft, handle = _new_draft(place)
    _write_draft(place, draft, handle, content, earlier)


def _new_draft(place: Path) -> tuple[Path, int]:
    draft = place.parent / f"{_stem(place)}{secrets.token_hex(8)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    _try_lock(handle)
    return draft, handle


def _write_draft(
    place: Path, draft: Path, handle: int, content: bytes, earlier: os.stat_result | None
) -> None:
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if earlier is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(earlier.st_mode))
            file.flush()
            os.replace(draft, place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _note(place: Path) -> None:
    """Adds a file to the record of its folder, where there is one."""
    folder = place.parent
    if place.name == RECORD_FILE or OutputRecord.load(folder) is None:
        return
    with _locked(folder):
        record = OutputRecord.load(folder)
        if record is not None:
            text = record.with_file(folder, place).render()
            draft, handle = _new_draft(folder / RECORD_FILE)
            _write_draft(folder / RECORD_FILE, draft, handle, text.encode(), None)


def _stem(place: Path) -> str:
    """Returns what the names of all work folders and drafts of a destination start with."""
    name = place.name
    if len(os.fsencode(name)) > LONGEST_STEM:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.photomask-"


def _new_work_folder(place: Path) -> tuple[Path, int]:
    """Makes a work folder and locks it; the lock goes with the process."""
    work = place.parent / f"{_stem(place)}{secrets.token_hex(8)}"
    work.mkdir(mode=0o700)
    lock = os.open(work, os.O_RDONLY)
    _try_lock(lock)
    (work / NEW).mkdir()
    return work, lock


def _replace(place: Path, work: Path) -> None:
    """Renames what was written to its place; an earlier output is moved aside first."""
    earlier = _status(place)
    if earlier is not None:
        os.chmod(work / NEW, stat.S_IMODE(earlier.st_mode))
        os.replace(place, work / OLD)
    os.replace(work / NEW, place)
    if earlier is not None:
        os.replace(work / OLD, work / DONE)


def _settle(place: Path, work: Path) -> None:
    """Puts the earlier output back if nothing stands in its place; removes the work folder."""
    if (work / OLD).is_dir() and not os.path.lexists(place):
        os.replace(work / OLD, place)
    shutil.rmtree(work, ignore_errors=True)


def _clear(place: Path) -> None:
    """Removes what killed writers of a destination left, and puts back what they moved aside."""
    for entry in list(os.scandir(place.parent)):
        is_named = entry.name.startswith(_stem(place)) and WORK_NAME.fullmatch(entry.name)
        if is_named and not entry.is_symlink():
            with suppress(FileNotFoundError):  # its living writer removes it just now
                _clear_one(place, Path(entry.path))


def _clear_one(place: Path, path: Path) -> None:
    is_work = path.is_dir() and {part.name for part in path.iterdir()} <= {NEW, OLD, DONE}
    if not is_work and not path.is_file():
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not _try_lock(handle):
            return  # a living process writes it
        if is_work:
            _settle(place, path)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keeps other writers out of a folder; yields False where its file system has no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # may be entered and written, but not read
        yield False
        return
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not (done := _try_lock(handle)) and done is not None:
            if time.monotonic() > end:
                raise TimeoutError(f"another process has locked {folder} for {LOCK_SECONDS:.0f} s")
            time.sleep(0.01)
        yield bool(done)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Takes the lock of a file or folder: True, False if another has it, None if there are none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True

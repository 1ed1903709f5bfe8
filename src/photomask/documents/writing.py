"""Writes files and folders that appear whole or not at all, and deletes nothing of the user.

A folder is written beside its destination, in a work folder `.NAME.photomask-<16 hex digits>`. It
then takes its place by two renames::

    .NAME.photomask-…/new     what is being written
    .NAME.photomask-…/old     the earlier output, between the two renames
    .NAME.photomask-…/done    the earlier output, when the new one stands in its place

The writing process holds a lock on its work folder. A work folder without a lock was left by a
killed process. The next output to the same destination puts `old` back if there is nothing in its
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
"""The longest name of a destination, in bytes, that the name of its work folder repeats. Most file
systems allow names of 255 bytes."""
LOCK_SECONDS = 60.0
"""How many seconds to wait while another process renames in the same folder. A rename takes
milliseconds."""


def _nothing(_: Path) -> tuple[str, ...]:
    """Returns no files, because no earlier version wrote such an output without a record."""
    return ()


@contextmanager
def written_whole(destination: Path, output: str, earlier: Earlier = _nothing) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `destination` only when all is written.

    If an error occurs, or if the process is killed while it writes, `destination` stays as it was.
    If the process is killed between the two renames that replace an earlier output, that output is
    left beside the destination, and the next output to the same destination puts it back first. If
    the destination is a symbolic link, the link stays and its target is replaced.

    Args:
        destination: the folder to create or to replace. It is replaced only if an earlier output of
            the same kind wrote everything in it, and if nothing was changed later.
        output: the kind of output in words, such as "chip export". The record holds it.
        earlier: a function that returns the files of a folder without a record that are proven, by
            a manifest, to be an output of this kind of an earlier version. By default there are
            none.

    Raises:
        ExportError: the destination holds something else, or a file cannot be written.
    """
    try:
        place = Path(os.path.realpath(destination))
        if not place.name:
            raise ExportError(
                f"{destination} is the root of the file system; choose a folder inside it"
            )
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
    """Writes a file that appears whole or not at all. It replaces an earlier file.

    A symbolic link stays, and its target is replaced. A replaced file keeps its permissions. The
    bytes are written into a device or a pipe directly. In a folder that Photomask wrote, the file
    is added to the folder's record.

    Raises:
        ExportError: the path is a folder, or the file cannot be written.
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
    """Writes to a device or a pipe. For a pipe without a reader it fails instead of waiting."""
    handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _write_beside(place: Path, content: bytes, earlier: os.stat_result | None) -> None:
    """Writes a file under another name in the same folder, and then renames it."""
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
    """Adds a file to the record of its folder, if the folder has one."""
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
    """Returns the start of the names of all work folders and drafts of a destination."""
    name = place.name
    if len(os.fsencode(name)) > LONGEST_STEM:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.photomask-"


def _new_work_folder(place: Path) -> tuple[Path, int]:
    """Makes a work folder and locks it. The lock ends with the process."""
    work = place.parent / f"{_stem(place)}{secrets.token_hex(8)}"
    work.mkdir(mode=0o700)
    lock = os.open(work, os.O_RDONLY)
    _try_lock(lock)
    (work / NEW).mkdir()
    return work, lock


def _replace(place: Path, work: Path) -> None:
    """Renames the written folder to its place, after it has moved an earlier output aside."""
    earlier = _status(place)
    if earlier is not None:
        os.chmod(work / NEW, stat.S_IMODE(earlier.st_mode))
        os.replace(place, work / OLD)
    os.replace(work / NEW, place)
    if earlier is not None:
        os.replace(work / OLD, work / DONE)


def _settle(place: Path, work: Path) -> None:
    """Puts an earlier output back if there is nothing in its place, and removes the work folder."""
    if (work / OLD).is_dir() and not os.path.lexists(place):
        os.replace(work / OLD, place)
    shutil.rmtree(work, ignore_errors=True)


def _clear(place: Path) -> None:
    """Removes work folders and drafts that killed processes left for a destination.

    An output that they had moved aside is put back.
    """
    for entry in list(os.scandir(place.parent)):
        is_named = entry.name.startswith(_stem(place)) and WORK_NAME.fullmatch(entry.name)
        if is_named and not entry.is_symlink():
            with suppress(FileNotFoundError):  # the process that writes it may remove it now
                _clear_one(place, Path(entry.path))


def _clear_one(place: Path, path: Path) -> None:
    is_work = path.is_dir() and {part.name for part in path.iterdir()} <= {NEW, OLD, DONE}
    if not is_work and not path.is_file():
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not _try_lock(handle):
            return  # a running process writes it
        if is_work:
            _settle(place, path)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keeps other writers out of a folder. It yields False if the file system has no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder may be entered and written, but not read
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
    """Takes the lock of a file or folder.

    The result is True after success, False if another process has the lock, and None if the file
    system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True

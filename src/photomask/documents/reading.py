"""Reads files with limits: only regular files, and no more bytes than such a file can have.

A device (`/dev/zero`), a pipe or a folder in the place of a file is refused before it is read. So
is a file that is larger than any file of its kind that Photomask writes.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from photomask.errors import DocumentError, PhotomaskError

DOCUMENT_BYTES = 64 << 20
"""The largest text document, in bytes. The manifest of an export with 10,000 golden files has about
10 MB."""

TENSOR_BYTES = min(64 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
"""The largest file of tensors, in bytes: the weights of a model with 32 billion parameters in 16
bits, but not more than the memory of this machine, because files are read into memory."""


def is_file(path: str | Path) -> bool:
    """Returns whether there is a regular file. The result is False for an impossible path too."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Returns whether there is a folder. The result is False for an impossible path too."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def file_of_name(
    given: object, what: str, presets: Iterable[str], error: type[PhotomaskError]
) -> Path:
    """Returns the path of the file that the user gave in place of the name of a preset.

    Args:
        given: the value that the user gave, which is not the name of a preset.
        what: the kind of document, for the message.
        presets: the names of the presets.
        error: the class of the error to raise if there is no such file.
    """
    if isinstance(given, (str, os.PathLike)) and is_file(os.fspath(given)):
        return Path(given)
    found = os.fspath(given) if isinstance(given, os.PathLike) else given
    article = "an" if what[0] in "aeiou" else "a"
    raise error(f"{found!r} is neither {article} {what} preset ({', '.join(presets)}) nor a file")


@contextmanager
def opened(path: Path, limit: int) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `limit` bytes for reading.

    The function never waits: a pipe without a writer is refused at once.

    Args:
        path: the path of the file. A symbolic link is followed.
        limit: the largest size of a file of this kind, in bytes.

    Raises:
        DocumentError: there is no file, it cannot be read, it is not a regular file, or it is too
            large.
    """
    try:
        file = _open(path, limit)
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL or a lone surrogate
        raise DocumentError(f"cannot read {path}: {error}") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise DocumentError(f"cannot read {path}: {error}") from error


def _open(path: Path, limit: int) -> BufferedReader:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(os.fstat(handle), path, limit)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: Path, limit: int) -> None:
    """Checks that `path` is a regular file of at most `limit` bytes, before others open it.

    Raises:
        DocumentError: it is not such a file, or it cannot be read.
    """
    with opened(path, limit):
        pass


def _check(status: os.stat_result, path: Path, limit: int) -> None:
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        kinds = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a pipe",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
            stat.S_IFSOCK: "a socket",
        }
        kind = kinds.get(stat.S_IFMT(mode), "something else")
        raise DocumentError(f"cannot read {path}: it is {kind}, but a file was expected")
    if status.st_size > limit:
        raise DocumentError(
            f"cannot read {path}: it holds {status.st_size:,} bytes, but at most {limit:,} are "
            "read from a file of this kind"
        )


def read_bytes(path: Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """Returns all bytes of a file.

    Args:
        path: the path of the file.
        limit: the largest size of a file of this kind, in bytes.

    Raises:
        DocumentError: the file is absent, unreadable, not a regular file, or too large.
    """
    parts: list[bytes] = []
    with opened(path, limit) as file:
        # The memory that is taken depends on the size of the file and not on the limit.
        piece, left = max(os.fstat(file.fileno()).st_size, 1 << 16) + 1, limit + 1
        while left and (part := file.read(min(piece, left))):
            parts.append(part)
            left -= len(part)
    content = b"".join(parts)
    if len(content) > limit:
        raise DocumentError(f"cannot read {path}: it grew over {limit:,} bytes while it was read")
    return content


def read_text(path: Path, limit: int = DOCUMENT_BYTES) -> str:
    """Returns the text of a UTF-8 file. All kinds of line ends become newline characters.

    Raises:
        DocumentError: the file is absent, unreadable, not a regular file, too large, or not text.
    """
    try:
        text = read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"cannot read {path}: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_of(path: Path, limit: int = TENSOR_BYTES) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DocumentError: the file is absent, unreadable, not a regular file, or too large.
    """
    with opened(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

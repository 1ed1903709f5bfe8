"""File names for steps and edges that are valid and distinct on every file system."""

import hashlib
import re
from collections.abc import Sequence

LONGEST = 96
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that a widespread file system reserves for devices."""


def safe_names(names: Sequence[str]) -> list[str]:
    """Returns one file name for each name, made of ASCII letters, digits, `_`, `-` and inner dots.

    The file names are distinct even on a file system that ignores case, also if the same name is
    given twice. They depend on the names and their order alone.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        stem, copy = _safe(name), 1
        candidate = stem
        while candidate.casefold() in taken:
            copy += 1
            candidate = f"{stem}-{copy}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def _safe(name: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".") or "_"
    if RESERVED.fullmatch(stem):
        stem = f"_{stem}"
    if len(stem) > LONGEST:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem = f"{stem[:LONGEST]}-{digest}"
    return stem

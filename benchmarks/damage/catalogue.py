"""All kinds of files, and good specimens of them."""

import tempfile
from collections.abc import Collection
from pathlib import Path

from . import checkpoints, chip, data, documents, onnx_files, others
from .specimen import Kind, Specimen

RECORD_FILE = ".photomask.json"
"""What lies in every output; only writers read it, so that it is damaged where one writes."""
KINDS: dict[str, Kind] = {
    kind.name: kind
    for part in (documents, chip, onnx_files, others, data, checkpoints)
    for kind in part.KINDS
}


def make_specimens(kinds: Collection[str] = tuple(KINDS)) -> list[Specimen]:
    """Returns a good specimen of each kind asked for."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        for part in (documents, chip, onnx_files, others, data, checkpoints):
            part.make(folder)
        return [Specimen(name, _files_of(folder / name)) for name in KINDS if name in kinds]


def _files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name != RECORD_FILE or folder.name == "output record")
    }

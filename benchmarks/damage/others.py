"""Kinds: pictures, settings of the command line, and records of outputs."""

import copy
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from photomask.chip.training import TrainingSettings
from photomask.chip.verification import Thresholds
from photomask.documents import read_text
from photomask.prompts import Prompt

from . import networks
from .documents import dumped
from .plain import parse
from .specimen import Files, Kind, WrongError

NOTES = "notes.txt"
"""A file of the user's in the folder of an output."""


def _read_pictures(folder: Path) -> Any:
    return Prompt((folder / "a.png", folder / "b.jpg")).images()


def _said_pictures(files: Files) -> Any:
    """Returns the size that a PNG's header states; nothing of what is no PNG any more."""
    sizes: dict[str, Any] = {}
    for place, content in enumerate(files.values()):
        if content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR":
            sizes[str(place)] = list(struct.unpack(">II", content[16:24]))
    return sizes


def _held_pictures(pictures: Any) -> Any:
    return {str(place): list(picture.size) for place, picture in enumerate(pictures)}


def _replace_output(folder: Path) -> Any:
    """Saves over an earlier output that holds a file of the user's, which must stay."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        networks.program().save(folder)
    finally:
        for path, content in before.items():
            if not path.is_file() or path.read_bytes() != content:
                raise WrongError(f"{path.name} was there before, and was replaced or deleted")
    return copy.copy(before)


def _settings(cls: Any, name: str) -> Any:
    return lambda folder: cls.parse(read_text(folder / name), name)


KINDS = (
    Kind("picture", _read_pictures, _held_pictures, _said_pictures, weight=2),
    Kind(
        "thresholds",
        _settings(Thresholds, "thresholds.json"),
        dumped,
        lambda files: parse(files["thresholds.json"]),
        weight=2,
    ),
    Kind(
        "settings",
        _settings(TrainingSettings, "settings.json"),
        dumped,
        lambda files: parse(files["settings.json"]),
        weight=2,
    ),
    Kind("output record", _replace_output, lambda found: {}, lambda files: {}, fixed=(NOTES,)),
)
"""None of these holds a hash of itself."""


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    for name in ("picture", "thresholds", "settings"):
        (folder / name).mkdir()
    pixels = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)
    for name in ("a.png", "b.jpg"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format={"a.png": "PNG", "b.jpg": "JPEG"}[name])
        (folder / "picture" / name).write_bytes(buffer.getvalue())
    (folder / "thresholds/thresholds.json").write_text(Thresholds().render(), encoding="utf-8")
    settings = networks.TRAINING.render()
    (folder / "settings/settings.json").write_text(settings, encoding="utf-8")
    networks.program().save(folder / "output record")
    (folder / "output record" / NOTES).write_text("the user's own\n", encoding="utf-8")

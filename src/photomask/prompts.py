"""Prompts of text and pictures, in memory and as JSON lines.

One line of a prompt file holds one prompt; a picture is a path, seen from the file's folder::

    {"content": [{"image": "a.png"}, {"image": "b.png"}, {"text": "Same kind?"}],
     "task": "compare", "answer": "yes"}
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import model_validator

from photomask.dependencies import OptionalPackage
from photomask.documents import Document, is_file, read_bytes, read_text, write_file
from photomask.errors import DataError, DocumentError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pixels alone: Pillow would also run PostScript and open documents."""

PICTURE_BYTES = 256 << 20
PICTURE_PIXELS = 1 << 26
"""64 megapixels, 192 MB as RGB; no model that reads pictures takes a tenth of them."""

DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
"""What Pillow raises for a file that is no whole picture."""


@dataclass(frozen=True)
class Prompt:
    """One question over pictures.

    Attributes:
        content: text and pictures in the order in which the model reads them, as one user turn; a
            picture is an image in memory or the path of a file.
        answer: the text that a right answer starts with; None where only the prompt counts.
        task: the group of questions that this one belongs to; accuracy is told for each.
    """

    content: tuple[str | Path | Image, ...]
    answer: str | None = None
    task: str = "default"

    def messages(self) -> list[dict[str, object]]:
        """Returns the prompt as chat messages, what a processor's chat template takes."""
        parts: list[dict[str, object]] = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in self.content
        ]
        return [{"role": "user", "content": parts}]

    def images(self) -> list[Image]:
        """Returns the pictures in order, those in files opened as RGB.

        Raises:
            DataError: a file is missing or is no picture.
        """
        return [
            open_image(part) if isinstance(part, Path) else part
            for part in self.content
            if not isinstance(part, str)
        ]


class _Part(Document):
    """A piece of text, or the path of a picture."""

    text: str | None = None
    image: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> _Part:
        if (self.text is None) == (self.image is None):
            raise ValueError("a part of the content is either a text or an image")
        return self


class _Line(Document):
    """One line of a prompt file."""

    content: tuple[_Part, ...]
    task: str = "default"
    answer: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Reads a file of JSON lines; blank lines are skipped.

    Raises:
        DocumentError: the file cannot be read, or a line is not a prompt; the message names it.
        DataError: a picture's file does not exist, or there is no prompt at all.
    """
    prompts = []
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        line = _Line.parse(text, f"{path}, line {number}")
        if not line.content:
            raise DocumentError(f"{path}, line {number}: field content: has no part")
        content: list[str | Path | Image] = []
        for part in line.content:
            if part.text is not None:
                content.append(part.text)
            elif part.image is not None:
                picture = path.parent / part.image
                if not is_file(picture):
                    raise DataError(f"{path}, line {number}: there is no picture {picture}")
                content.append(picture)
        prompts.append(Prompt(tuple(content), line.answer, line.task))
    if not prompts:
        raise DataError(f"{path} holds no prompt; expected one JSON object a line")
    return prompts


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes a file that `read_prompts` reads; pictures in memory become PNG files beside it.

    Raises:
        ExportError: the disk refused a file.
    """
    lines = []
    for number, prompt in enumerate(prompts):
        parts: list[dict[str, str]] = []
        for part in prompt.content:
            if isinstance(part, str):
                parts.append({"text": part})
                continue
            if isinstance(part, Path):
                parts.append({"image": str(part.resolve())})
                continue
            name = f"{path.stem}-{number:05d}-{len(parts):02d}.png"
            write_file(path.parent / name, _png(part))
            parts.append({"image": name})
        line: dict[str, object] = {"content": parts, "task": prompt.task}
        if prompt.answer is not None:
            line["answer"] = prompt.answer
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_file(path, "".join(lines).encode())


def open_image(path: Path) -> Image:
    """Opens a picture as RGB, within bounds.

    Raises:
        DataError: it is absent, damaged, larger than is read, of more than 8 bits, or no picture.
        MissingDependencyError: pillow is not installed.
    """
    with OptionalPackage("pillow", "zoo", "reading pictures"):
        from PIL import Image

    try:
        content = io.BytesIO(read_bytes(path, PICTURE_BYTES))
        with Image.open(content, formats=PICTURE_FORMATS) as file:
            if (pixels := math.prod(file.size)) > PICTURE_PIXELS:
                raise DataError(f"it has {pixels:,} pixels, at most {PICTURE_PIXELS:,} are read")
            if file.mode[0] in "IF":
                raise DataError(
                    f"its pixels have more than 8 bits (mode {file.mode}), which would be cut off "
                    "at 255: save it with 8 bits"
                )
            return file.convert("RGB")
    except (DocumentError, DataError, Image.DecompressionBombError, *DAMAGED) as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()

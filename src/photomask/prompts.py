"""Prompts of text and pictures, in memory and as JSON lines.

Each line of a prompt file holds one prompt. A picture is a path relative to the folder of the
file::

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
"""The picture formats that are read. They hold only pixels, while Pillow also reads formats with
programs and documents, such as PostScript."""

PICTURE_BYTES = 256 << 20
PICTURE_PIXELS = 1 << 26
"""The largest number of pixels of a picture: 64 megapixels, which take 192 MB as RGB. No model that
reads pictures takes a tenth of them."""

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
"""The errors that Pillow raises for a file that is not a complete picture."""


@dataclass(frozen=True)
class Prompt:
    """A question about pictures.

    Attributes:
        content: the text and the pictures in the order in which the model reads them, as one turn
            of the user. A picture is an image in memory or the path of a file.
        answer: the text with which a right answer starts; None if there is no right answer.
        task: the group of questions that this one belongs to. Reports state the accuracy of each
            group.
    """

    content: tuple[str | Path | Image, ...]
    answer: str | None = None
    task: str = "default"

    def messages(self) -> list[dict[str, object]]:
        """Returns the prompt as chat messages for the chat template of a processor."""
        parts: list[dict[str, object]] = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in self.content
        ]
        return [{"role": "user", "content": parts}]

    def images(self) -> list[Image]:
        """Returns the pictures in order. Pictures in files are opened as RGB.

        Raises:
            DataError: a file is missing, or it is not a picture.
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
            raise ValueError("a part of the content must hold either a text or an image")
        return self


class _Line(Document):
    """One line of a prompt file."""

    content: tuple[_Part, ...]
    task: str = "default"
    answer: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Returns the prompts of a file of JSON lines. Blank lines are skipped.

    Raises:
        DocumentError: the file cannot be read, or a line is not a prompt. The message names the
            line.
        DataError: the file of a picture does not exist, or there is no prompt at all.
    """
    prompts = []
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        line = _Line.parse(text, f"{path}, line {number}")
        if not line.content:
            raise DocumentError(
                f"{path}, line {number}: field content: has no part; expected text or pictures"
            )
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
        raise DataError(f"{path} holds no prompt; expected one JSON object on each line")
    return prompts


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes a file for `read_prompts`. Pictures in memory become PNG files beside it.

    Raises:
        ExportError: a file cannot be written.
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
    """Returns a picture as RGB. Pictures that are too large are refused.

    Raises:
        DataError: the file is absent, damaged, too large or not a picture, or its pixels have more
            than 8 bits.
        MissingDependencyError: Pillow is not installed.
    """
    with OptionalPackage("pillow", "zoo", "reading pictures"):
        from PIL import Image

    try:
        content = io.BytesIO(read_bytes(path, PICTURE_BYTES))
        with Image.open(content, formats=PICTURE_FORMATS) as file:
            if (pixels := math.prod(file.size)) > PICTURE_PIXELS:
                raise DataError(
                    f"it has {pixels:,} pixels, but at most {PICTURE_PIXELS:,} are read"
                )
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

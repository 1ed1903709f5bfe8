"""Reads a folder of pictures as the input of a model.

The file `preprocessing.json` in the folder says how pixels become numbers. This is never guessed::

    {"size": [224, 224], "channels": 3, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

The pictures are in the folder itself, or in one sub-folder for each class. The sub-folders, in the
order of their names, are the classes 0, 1, 2 …
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from photomask.documents import Document, is_file, read_text
from photomask.errors import DataError
from photomask.prompts import open_image

PREPROCESSING_FILE = "preprocessing.json"
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
MOST_BYTES = 1 << 34
"""The most bytes that all pictures together may take as float32, because all are in memory."""
EXAMPLE = '{"size": [224, 224], "channels": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}'


class Preprocessing(Document):
    """The rule by which a picture becomes a model's input.

    Each channel becomes `(pixel / 255 - mean) / std`.

    Attributes:
        size: the height and width of the input. A picture of another size is resized with bilinear
            interpolation.
        channels: 1 for grey, 3 for red, green and blue.
        mean: the mean of each channel, in units of full scale (255).
        std: the standard deviation of each channel, in units of full scale (255).
    """

    size: tuple[Annotated[int, Field(ge=1, le=1 << 14)], Annotated[int, Field(ge=1, le=1 << 14)]]
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _has_numbers_for_each_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"with {self.channels} channel(s), mean and std must have {self.channels} "
                f"number(s) each, but they have {len(self.mean)} and {len(self.std)}"
            )
        return self


def read_picture_folder(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Reads all pictures of a folder, in the order of their names.

    Args:
        folder: a folder with `preprocessing.json`, and with pictures or one sub-folder for each
            class.

    Returns:
        The images, float32 [count, channels, height, width], and the classes, int64 [count], or
        None if there are no sub-folders.

    Raises:
        DataError: there is no `preprocessing.json` or no picture, the pictures do not fit into
            memory, there are pictures beside sub-folders, a sub-folder is empty, or a file is
            damaged or not a picture.
        DocumentError: `preprocessing.json` is not valid.
        MissingDependencyError: Pillow is not installed.
    """
    path = folder / PREPROCESSING_FILE
    if not is_file(path):
        raise DataError(
            f"the folder {folder} does not say how its pictures become numbers: write a file "
            f"{path.name} into it, for example {EXAMPLE}"
        )
    form = Preprocessing.parse(read_text(path), str(path))
    entries = [entry for entry in _visible(folder) if entry.name != PREPROCESSING_FILE]
    classes = [entry for entry in entries if entry.is_dir()]
    if classes and len(classes) != len(entries):
        alone = next(entry for entry in entries if not entry.is_dir())
        raise DataError(
            f"{folder} holds {alone.name!r} beside its {len(classes)} sub-folders: put every "
            "picture into the sub-folder of its class, or use no sub-folders"
        )
    found = [(picture, None) for picture in entries] if not classes else []
    for label, part in enumerate(classes):
        pictures = [(picture, label) for picture in _visible(part)]
        if not pictures:
            raise DataError(
                f"the class {part} holds no pictures: put pictures into the sub-folder, or remove "
                "it; if you remove it, the numbers of the later classes change"
            )
        found += pictures
    if not found:
        raise DataError(
            f"{folder} holds no pictures: put pictures ({', '.join(sorted(SUFFIXES))}) into it"
        )
    _demand_room(folder, form, len(found))
    images = torch.empty(len(found), form.channels, *form.size)
    for row, (picture, _) in zip(images, found, strict=True):
        row.copy_(_prepared(picture, form))
    labels = [label for _, label in found if label is not None]
    return images, torch.tensor(labels) if classes else None


def _demand_room(folder: Path, form: Preprocessing, count: int) -> None:
    """Raises DataError if the decoded pictures would take more memory than is allowed."""
    each = 4 * form.channels * form.size[0] * form.size[1]
    if count * each > MOST_BYTES:
        raise DataError(
            f"the {count:,} pictures of {folder} take {count * each:,} bytes of memory at "
            f"{each:,} each, but at most {MOST_BYTES:,} are read: keep {MOST_BYTES // each:,} of "
            f"them there, or state a smaller size in {PREPROCESSING_FILE}"
        )


def _visible(folder: Path) -> Iterator[Path]:
    """Yields the entries of a folder in the order of their names, without hidden files."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    yield from (entry for entry in entries if not entry.name.startswith("."))


def _prepared(path: Path, form: Preprocessing) -> Tensor:
    """Returns one picture as [channels, height, width]."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} is not a picture, because its name ends in none of "
            f"{', '.join(sorted(SUFFIXES))}; move it to another folder"
        )
    image = open_image(path)
    height, width = form.size
    if image.size != (width, height):
        image = image.resize((width, height), resample=2)  # bilinear
    image = image.convert("L" if form.channels == 1 else "RGB")
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, form.channels) / 255
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mean, std = (np.array(x, dtype=np.float32) for x in (form.mean, form.std))
        values = (pixels - mean) / std
    if not np.isfinite(values).all():
        raise DataError(
            f"{path}: with mean {form.mean} and std {form.std} its values are beyond float32; "
            f"state the mean and std of the model's training in {PREPROCESSING_FILE}"
        )
    return torch.from_numpy(values.transpose(2, 0, 1).copy())

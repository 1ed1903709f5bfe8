"""Kinds: data of users and of the zoo, and what Yosys writes."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from photomask.chip.forms.rtl.synthesis import YosysStatistics, cells_of
from photomask.zoo import catalogue, fashion_mnist, load_labelled, load_labels, sentences
from photomask.zoo.picture_folder import read_picture_folder

from .documents import npy_array, npz_arrays
from .plain import marks, parse, tensors_of
from .specimen import AmbiguousError, Files, Kind, WrongError

NETWORK = "resnet20"
PICTURES = ("a/one.png", "a/two.png", "b/three.png")
LABELS = ("labels", "label")
REVIEWS = "1\t2.5\tA film to see again.\n2\t-1.25\tTwo hours, lost.\n"


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Lets a reader find its file elsewhere; only one file is read at a time."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _held_pair(found: tuple[torch.Tensor, torch.Tensor | None]) -> Any:
    images, labels = found
    said = marks({"images": images.numpy()})
    return said if labels is None else said | marks({"labels": labels.numpy()})


def _said_pair(images: np.ndarray, labels: np.ndarray | None) -> Any:
    return _held_pair(
        (
            torch.from_numpy(_native(images).astype(np.float32)),
            None if labels is None else torch.from_numpy(_native(labels).astype(np.int64)),
        )
    )


def _native(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))


def _use_pair(found: tuple[torch.Tensor, torch.Tensor | None], files: Files) -> None:
    """Holds what every reader of pictures and classes promises."""
    images, labels = found
    if images.dtype != torch.float32 or images.ndim < 2 or not torch.isfinite(images).all():
        raise WrongError("the images are no finite float32 numbers of two or more axes")
    if labels is not None and (labels.dtype != torch.int64 or len(labels) != len(images)):
        raise WrongError("not one label for each image")


def _read_npy(folder: Path) -> Any:
    images, beside = load_labelled(str(folder / "data.npy"))
    labels = load_labels(folder / "classes.npy", len(images))
    if beside is None:
        raise WrongError("the labels beside the images were not read")
    return images, torch.stack([beside, labels], -1) if beside.shape == labels.shape else None


def _said_npy(files: Files) -> Any:
    beside, labels = npy_array(files["data.labels.npy"]), npy_array(files["classes.npy"])
    both = (
        np.stack([_native(beside), _native(labels)], -1) if beside.shape == labels.shape else None
    )
    return _said_pair(npy_array(files["data.npy"]), both)


def _said_npz(files: Files) -> Any:
    arrays = npz_arrays(files["data.npz"])
    keys = [key for key in LABELS if key in arrays]
    labels = arrays.pop(keys[0]) if keys else None
    if len(arrays) != 1:
        raise AmbiguousError("not one array of images")
    return _said_pair(*arrays.values(), labels)


def _said_folder(files: Files) -> Any:
    """Returns the number of pictures, their classes and their size."""
    form = parse(files["preprocessing.json"])
    return {
        "shape": [len(PICTURES), form["channels"], *form["size"]],
        "labels": [sorted({"a", "b"}).index(name[0]) for name in PICTURES],
    }


def _held_folder(found: Any) -> Any:
    return {"shape": list(found[0].shape), "labels": found[1].tolist()}


def _use_folder(found: Any, files: Files) -> None:
    """Holds every picture against the formula, by Pillow alone."""
    _use_pair(found, files)
    form = parse(files["preprocessing.json"])
    mode, (height, width) = {1: "L", 3: "RGB"}[form["channels"]], form["size"]
    for image, name in zip(found[0].numpy(), PICTURES, strict=True):
        with Image.open(io.BytesIO(files[name])) as file:
            picture = file.convert("RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture.convert(mode), np.float64).reshape(height, width, -1) / 255
        expected = (pixels - np.array(form["mean"])) / np.array(form["std"])
        with np.errstate(over="ignore"):
            limit = 1e-5 * np.maximum(1, np.abs(1 / np.array(form["std"])))
        if not np.allclose(image.transpose(1, 2, 0), expected, rtol=1e-4, atol=limit.max()):
            raise WrongError(f"{name} is not (pixel / 255 - mean) / std")


def _read_shipped(folder: Path) -> Any:
    with _replaced(fashion_mnist, "_FOLDER", folder):
        return fashion_mnist.calibration_set(fashion_mnist.CALIBRATION_COUNT)


def _said_shipped(files: Files) -> Any:
    arrays = npz_arrays(files["fashion_mnist_calibration.npz"])
    if not {"pixels", "labels"} <= set(arrays):
        raise AmbiguousError("no pixels, or no labels")
    scaled = torch.from_numpy(_native(arrays["pixels"])).unsqueeze(1).to(torch.float32) / 255
    images = (scaled - 0.2860) / 0.3530
    return _said_pair(images.numpy(), arrays["labels"])


def _use_shipped(found: Any, files: Files) -> None:
    _use_pair(found, files)
    if not 0 <= int(found[1].min()) <= int(found[1].max()) <= 9:
        raise WrongError("a label is no class")


def _read_weights(folder: Path) -> Any:
    with _replaced(catalogue, "_FOLDER", folder):
        return catalogue.load(NETWORK)


def _held_weights(model: torch.nn.Module) -> Any:
    return marks({name: tensor.numpy() for name, tensor in model.state_dict().items()})


def _read_reviews(folder: Path) -> Any:
    expected = hashlib.sha256(_reviews()).hexdigest()
    with _replaced(sentences, "_ARCHIVE_SHA256", expected):
        return sentences.review_snippets(folder)


def _held_reviews(found: Any) -> Any:
    return {"texts": found[0], "ratings": found[1].tolist()}


def _said_reviews(files: Files) -> Any:
    """Returns the only lines that there are: any other archive has another hash."""
    if files[sentences._ARCHIVE] != _reviews():
        raise AmbiguousError("another archive")
    rows = [line.split("\t") for line in REVIEWS.splitlines()]
    return {"texts": [row[2] for row in rows], "ratings": [float(row[1]) for row in rows]}


def _reviews() -> bytes:
    """The archive in the archive, which the zoo takes by its hash."""
    inner = _tar(sentences._SNIPPETS, REVIEWS.encode())
    return _tar(sentences._INNER_ARCHIVE, inner)


def _tar(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0)


def _read_cells(folder: Path) -> Any:
    return cells_of("unit", {}, YosysStatistics.load(folder / "cells.json"))


def _said_cells(files: Files) -> Any:
    cells: dict[str, int] = {}
    modules = parse(files["cells.json"])["modules"].values()
    for module in modules:
        for name, count in module["num_cells_by_type"].items():
            if not name.startswith("$mem"):
                cells[name] = cells.get(name, 0) + count
    return {"cells": cells, "memory_bits": sum(module["num_memory_bits"] for module in modules)}


def _use_cells(cells: Any, files: Files) -> None:
    if cells.gates < 0 or cells.flip_flops < 0 or cells.memory_bits < 0:
        raise WrongError("a count is below zero")


KINDS = (
    Kind("npy data", _read_npy, _held_pair, _said_npy, use=_use_pair, weight=2),
    Kind("npz data", lambda p: load_labelled(str(p / "data.npz")), _held_pair, _said_npz,
         use=_use_pair, weight=2),
    Kind("picture folder", read_picture_folder, _held_folder, _said_folder, use=_use_folder,
         weight=2),
    Kind("shipped pictures", _read_shipped, _held_pair, _said_shipped, use=_use_shipped, weight=1),
    Kind("shipped weights", _read_weights, _held_weights,
         lambda files: marks(tensors_of(files[f"{NETWORK}.safetensors"])[0]), weight=1),
    Kind("reviews", _read_reviews, _held_reviews, _said_reviews, weight=1),
    Kind("cells", _read_cells, lambda cells: cells.model_dump(), _said_cells, use=_use_cells,
         weight=2),
)  # fmt: skip
"""None of these holds a hash of itself; the hash of the reviews lies in the package."""


def make(folder: Path) -> None:
    """Writes a good specimen of each kind into a folder of its name."""
    for kind in KINDS:
        (folder / kind.name).mkdir()
    pixels = np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 4, 4)
    np.save(folder / "npy data/data.npy", pixels)
    np.save(folder / "npy data/data.labels.npy", np.arange(3, dtype=np.uint8))
    np.save(folder / "npy data/classes.npy", np.arange(3))
    np.savez_compressed(folder / "npz data/data.npz", pixels=pixels, labels=np.arange(3))
    _make_pictures(folder / "picture folder")
    name = "fashion_mnist_calibration.npz"
    (folder / "shipped pictures" / name).write_bytes((fashion_mnist._FOLDER / name).read_bytes())
    name = f"{NETWORK}.safetensors"
    (folder / "shipped weights" / name).write_bytes((catalogue._FOLDER / name).read_bytes())
    (folder / "reviews" / sentences._ARCHIVE).write_bytes(_reviews())
    statistics = {
        "creator": "Yosys 0.70 (git sha1 0)",
        "invocation": "stat -json",
        "modules": {
            "\\unit": {
                "num_wires": 9,
                "num_memories": 1,
                "num_memory_bits": 512,
                "num_cells": 9,
                "num_cells_by_type": {"$_AND_": 4, "$_SDFF_PP0_": 4, "$mem_v2": 1},
            },
            "\\part": {"num_memory_bits": 0, "num_cells_by_type": {"$_AND_": 2}},
        },
        "design": {"num_wires": 9},
    }
    (folder / "cells/cells.json").write_text(json.dumps(statistics, indent=1), encoding="utf-8")


def _make_pictures(folder: Path) -> None:
    form = {"size": [6, 8], "channels": 3, "mean": [0.5, 0.25, 0], "std": [0.5, 1, 2]}
    (folder / "preprocessing.json").write_text(json.dumps(form), encoding="utf-8")
    for place, name in enumerate(PICTURES):
        height = 6 + place  # the others are resized
        values = np.arange(height * 8 * 3, dtype=np.uint8).reshape(height, 8, 3)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / name)

"""Loads the models and images that a user names: from the zoo, a file, or `file.py:function`."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from photomask.arrays import int64_array, plain_array, read_array, read_arrays
from photomask.documents import is_folder
from photomask.errors import DataError, DocumentError, UsageError
from photomask.user_files import evaluate, kind_of
from photomask.zoo import catalogue, fashion_mnist, photographs
from photomask.zoo.picture_folder import read_picture_folder

R = TypeVar("R")

Samples = Tensor | dict[str, Tensor]
"""Samples along axis 0: a tensor for a model with one input, or a tensor for each input by name."""
LABELS = ("labels", "label")
"""The keys under which a `.npz` file or a dictionary may hold classes."""

DATA_SETS: dict[str, tuple[str, Callable[[], Tensor]]] = {
    "fashion_mnist": (
        "28 × 28 pictures of clothes: 1,024 to calibrate and train on, 10,000 to verify on.",
        lambda: fashion_mnist.calibration_set()[0],
    ),
    "photographs": (
        "64 crops of photographs, 224 × 224 pixels, without labels.",
        lambda: photographs.photograph_crops(64),
    ),
}
"""The data sets by name: a sentence about each, and the function that loads its inputs."""


def load_model(source: str, *, untrained_seed: int | None = None) -> nn.Module:
    """Loads a model of the zoo or of the user.

    Args:
        source: a name of the zoo (`resnet20`), or `path/to/file.py:attribute`. The attribute is an
            `nn.Module`, or a function or class that makes one without arguments. The file can
            import modules beside it. Either may have `@weights.safetensors` behind it, a file with
            the state dict of that model.
        untrained_seed: the seed of random weights in place of those of the zoo; None for the
            latter. Other models and weights that are named stay as they are.

    Returns:
        The model in evaluation mode.

    Raises:
        UsageError: there is no such name, file or attribute, running it failed (with the original
            error as `__cause__`), or the result is not an `nn.Module`.
        DataError: the weights cannot be read, or belong to another model.
    """
    source, weights = _parted_from_weights(source)
    if ":" not in source:
        if source not in catalogue.names():
            raise UsageError(
                f"there is no model {source!r}: give a name of the zoo "
                f"({', '.join(catalogue.names())}) or path/to/file.py:function"
            )
        if weights is None and untrained_seed is not None:
            return catalogue.untrained(source, untrained_seed)
        return catalogue.load(source, weights)
    model = evaluate(source, kept=nn.Module)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{source} gave {kind_of(model)}, not a torch.nn.Module: name a model, or a function "
            "that returns one"
        )
    return model.eval() if weights is None else catalogue.with_weights(model, weights)


def _parted_from_weights(source: str) -> tuple[str, Path | None]:
    """Returns the name of a model, and the file of weights that stands behind it, if any."""
    model, at, weights = source.rpartition("@")
    if not at or not weights.endswith(".safetensors"):
        return source, None
    if not os.path.isfile(weights):
        raise UsageError(f"there is no file of weights {weights!r} (from {source!r})")
    return model, Path(weights)


def load_images(source: str) -> Tensor:
    """Loads input images for calibration or test, without labels.

    Args:
        source: a source as for `load_labelled`, with one array of inputs.

    Returns:
        The images, float32 [count, ...], on the CPU.

    Raises:
        UsageError: there is no such name, file or attribute, or running it failed.
        DataError: the inputs cannot be used, they are not floats, or there are several arrays.
    """
    images = load_labelled(source)[0]
    if isinstance(images, dict):
        raise DataError(
            f"{source} holds the arrays {', '.join(images)}, but one array of images was expected"
        )
    if not images.is_floating_point():
        raise DataError(
            f"{source} holds {images.dtype}, but floats were expected, normalised as the model "
            "takes them"
        )
    return images


def load_labelled(source: str) -> tuple[Samples, Tensor | None]:
    """Loads input samples and, if the source has them, their classes.

    Args:
        source: one of these:

            - `fashion_mnist` (the calibration slice) or `photographs` (64 crops, 224x224);
            - a `.npy` file. A file `NAME.labels.npy` beside `NAME.npy` may hold the classes;
            - a `.npz` file with one array, or with an array for each input of the model under the
              name of the input. The classes are under the key `labels` or `label`;
            - a folder of pictures (see `photomask.zoo.picture_folder`). Its sub-folders, if it has
              any, are the classes;
            - `path/to/file.py:attribute`. The attribute is an array, a tensor, an iterable of
              batches or a dictionary like a `.npz` file, or a function without arguments that
              returns one of these.

    Returns:
        The inputs on the CPU, float32 or integers [count, ...], by name if there are several
        arrays. Then the classes, int64 [count, ...], or None.

    Raises:
        UsageError: there is no such name, file or attribute, or running it failed.
        DataError: there are no samples, the samples are not numbers or hold NaN or infinity, the
            number of labels differs from that of the samples, or a file is damaged.
    """
    if source in DATA_SETS:
        return DATA_SETS[source][1](), None
    labels: Any = None
    if source.endswith(".npy"):
        values: Any = _read(Path(source), read_array)
        beside = Path(source.removesuffix(".npy") + ".labels.npy")
        if os.path.lexists(beside):
            labels = _read(beside, read_array)
    elif source.endswith(".npz"):
        values = _read(Path(source), read_arrays)
    elif ":" in source:
        values = evaluate(source)
    elif is_folder(source):
        values, labels = read_picture_folder(Path(source))
    else:
        raise UsageError(
            f"there are no images {source!r}: give one of {', '.join(sorted(DATA_SETS))}, a .npy "
            "or .npz file, a folder of pictures, or path/to/file.py:function"
        )
    if isinstance(values, Mapping):
        values, labels = _parted(values, source)
    samples = _by_name(values, source) if isinstance(values, dict) else _as_images(values, source)
    return samples, None if labels is None else _as_labels(labels, count_of(samples), source)


def count_of(samples: Samples) -> int:
    """Returns the number of samples."""
    return len(next(iter(samples.values()))) if isinstance(samples, dict) else len(samples)


def load_labels(path: Path, count: int) -> Tensor:
    """Loads classes from a `.npy` file.

    Args:
        path: the path of the file.
        count: the number of samples that the classes belong to.

    Returns:
        The classes, int64 [count, ...].

    Raises:
        UsageError: there is no such file.
        DataError: the classes are not integers, their number is not `count`, or the file is
            damaged.
    """
    return _as_labels(_read(path, read_array), count, str(path))


def _parted(arrays: Mapping[str, Any], source: str) -> tuple[Any, Any]:
    """Returns the array of inputs, or several arrays by name, and the labels beside them."""
    inputs = dict(arrays)
    keys = [key for key in LABELS if key in inputs]
    if len(keys) > 1:
        raise DataError(f"{source} holds classes under both {' and '.join(keys)}: leave one out")
    labels = inputs.pop(keys[0]) if keys else None
    if not inputs:
        raise DataError(
            f"{source} holds the arrays {', '.join(sorted(arrays)) or 'none'}; expected an array "
            f"for each input, and the classes under {' or '.join(LABELS)} if there are any"
        )
    return (inputs if len(inputs) > 1 else inputs.popitem()[1]), labels


def _by_name(arrays: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Returns the samples of several inputs by name. It does not check the names."""
    samples = {}
    for name, values in arrays.items():
        where = f"{source}, array {name!r},"
        if not isinstance(values, np.ndarray | Tensor):
            raise DataError(f"{where} is {kind_of(values)}, not an array or a tensor")
        samples[name] = _checked(_as_tensor(values, where), where)
    if len({len(values) for values in samples.values()}) > 1:
        found = ", ".join(f"{len(values)} of {name!r}" for name, values in samples.items())
        raise DataError(
            f"{source} holds different numbers of samples: {found}; every input needs the same"
        )
    return samples


def _as_labels(labels: Any, count: int, source: str) -> Tensor:
    classes = _as_tensor(labels, f"{source}, labels")
    if classes.dtype.is_floating_point or classes.is_complex() or classes.dtype == torch.bool:
        raise DataError(f"the labels of {source} are {classes.dtype}, expected integers")
    if not classes.ndim or len(classes) != count:
        raise DataError(
            f"the labels of {source} have shape {list(classes.shape)}, expected [{count}] or "
            f"[{count}, ...], because there are {count} samples"
        )
    return torch.from_numpy(int64_array(classes.numpy(), f"{source}, labels,"))


def _as_tensor(values: np.ndarray | Tensor, source: str) -> Tensor:
    """Returns numbers as a tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        return torch.from_numpy(plain_array(values))
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _read(path: Path, reader: Callable[[Path], R]) -> R:
    if not os.path.lexists(path):
        raise UsageError(f"there is no file {path}")
    try:
        return reader(path)
    except DocumentError as error:
        raise DataError(str(error)) from error


def _as_images(values: Any, source: str) -> Tensor:
    """Returns one checked tensor from an array, a tensor or an iterable of batches."""
    if isinstance(values, np.ndarray | Tensor):
        images = _as_tensor(values, source)
    elif isinstance(values, Iterable) and not isinstance(values, str | bytes | dict):
        batches = [_as_images(batch, source) for batch in values]
        if not batches:
            raise DataError(f"{source} holds no samples")
        if len({batch.shape[1:] for batch in batches}) > 1:
            raise DataError(f"{source}: the batches hold images of different shapes")
        return torch.cat(batches)
    else:
        raise DataError(
            f"{source} gave {kind_of(values)}, but an array, a tensor or batches of them were "
            "expected"
        )
    return _checked(images, source)


def _checked(values: Tensor, where: str) -> Tensor:
    """Returns the samples after a check, with floats as float32."""
    if values.ndim < 2 or values.numel() == 0:
        raise DataError(
            f"{where} holds no samples: its shape is {list(values.shape)}, expected [N, ...]"
        )
    if not values.is_floating_point():
        return values
    values = values.to(torch.float32)
    if not torch.isfinite(values).all():
        raise DataError(f"{where} holds NaN or infinity, or numbers beyond float32")
    return values

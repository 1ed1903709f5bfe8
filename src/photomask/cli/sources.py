"""Data by what a user types."""

from pathlib import Path
from typing import TYPE_CHECKING

from photomask.errors import DataError, DocumentError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DATA_HELP = (
    "fashion-mnist, photographs, a .npy or .npz file of floats, a folder of pictures with "
    "preprocessing.json, or path/to/file.py:function."
)
"""What options that take data say they take."""

TEST_SETS = ("fashion_mnist",)
HYPHENATED = ("fashion-mnist",)


def load_inputs(source: str, samples: int | None) -> "Tensor":
    """Loads real inputs.

    Args:
        source: a data set of the zoo, a `.npy` or `.npz` file, a folder of pictures, or
            `path/to/file.py:function`.
        samples: how many to take from the front; None takes all.

    Raises:
        UsageError: there is no such source, or fewer samples.
        DataError: no images, no float values, NaN or infinity, or a damaged file.
    """
    from photomask.zoo import load_images

    return _first(load_images(_zoo_name(source)), samples, source)


def load_test_data(
    source: str, labels: Path | None, samples: int | None
) -> "tuple[Tensor, Tensor | None]":
    """Loads real inputs and, where there are any, the right classes.

    Args:
        source: as for `load_inputs`; `fashion-mnist` is the test set, with its labels.
        labels: `.npy` file of integers; None takes those that the source holds, if any.
        samples: how many to take from the front; None takes all.

    Raises:
        UsageError: there is no such source, or fewer samples.
        DataError: the data cannot be used.
    """
    from photomask.zoo import load_labelled, load_labels, test_set

    name = _zoo_name(source)
    images, classes = test_set() if name in TEST_SETS else load_labelled(name)
    if labels is not None:
        classes = load_labels(labels, len(images))
    return _first(images, samples, source), None if classes is None else classes[:samples]


def load_array(path: Path) -> "np.ndarray":
    """Reads a `.npy` file.

    Raises:
        UsageError: there is no such file.
        DataError: it is no plain array of numbers.
    """
    import os

    from photomask.arrays import read_array

    if not os.path.lexists(path):
        raise UsageError(f"no file {path}")
    try:
        array = read_array(path)
    except DocumentError as error:
        raise DataError(str(error)) from error
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path} is not a plain .npy array of numbers")
    return array


def _zoo_name(source: str) -> str:
    """Data sets of the zoo may be written with a hyphen, as their authors do."""
    return source.replace("-", "_") if source in HYPHENATED else source


def _first(images: "Tensor", samples: int | None, source: str) -> "Tensor":
    if samples is not None and not 1 <= samples <= len(images):
        raise UsageError(f"{source} holds {len(images)} samples, asked for {samples}")
    return images[:samples]


def save_arrays(path: Path, arrays: "dict[str, np.ndarray]") -> None:
    """Writes one array to a `.npy` file, or several to one file each, with their names.

    Raises:
        ExportError: the disk refused a file.
    """
    import io

    import numpy as np

    from photomask.documents import write_file

    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        single = len(arrays) == 1
        write_file(path if single else path.with_suffix(f".{name}.npy"), buffer.getvalue())

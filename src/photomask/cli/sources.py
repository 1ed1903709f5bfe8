"""Data and devices by what a user types."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from photomask.errors import DataError, DocumentError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from photomask.zoo import Samples

TEST_SETS = ("fashion_mnist",)


def load_inputs(source: str, samples: int | None) -> "Samples":
    """Loads real inputs.

    Args:
        source: a data set of the zoo, a `.npy` or `.npz` file, a folder of pictures, or
            `path/to/file.py:function`.
        samples: how many to take from the front; None takes all.

    Raises:
        UsageError: there is no such source, or fewer samples.
        DataError: no samples, NaN or infinity, or a damaged file.
    """
    from photomask.zoo import load_labelled

    return _counted(load_labelled(_zoo_name(source))[0], samples, source)


def load_test_data(
    source: str, labels: Path | None, samples: int | None
) -> "tuple[Samples, Tensor | None]":
    """Loads real inputs and, where there are any, the right classes.

    Args:
        source: as for `load_inputs`; `fashion-mnist` is the test set, with its labels.
        labels: `.npy` file of integers; None takes those that the source holds, if any.
        samples: how many to take from the front; None takes all.

    Raises:
        UsageError: there is no such source, or fewer samples.
        DataError: the data cannot be used.
    """
    from photomask.zoo import count_of, load_labelled, load_labels, test_set

    name = _zoo_name(source)
    inputs, classes = test_set() if name in TEST_SETS else load_labelled(name)
    if labels is not None:
        classes = load_labels(labels, count_of(inputs))
    return _counted(inputs, samples, source), None if classes is None else classes[:samples]


def load_held_out(
    source: str, labels: Path | None, calibration: int, samples: int
) -> "tuple[Samples, Samples, Tensor]":
    """Loads calibration samples, and other samples with their right classes.

    Args:
        source: as for `load_inputs`. The samples of a data set of the zoo that has a test set come
            from that; of any other source, those after the calibration samples are held out.
        labels: `.npy` file of integers, one for each sample of the source; None takes those that
            the source holds.
        calibration: how many samples to calibrate on.
        samples: how many samples to hold out at most.

    Returns:
        The calibration samples, the samples that are held out, and their right classes.

    Raises:
        UsageError: there is no such source, or fewer samples.
        DataError: the data cannot be used, or have no right classes.
    """
    from photomask.zoo import count_of

    held_out, classes = load_test_data(source, labels, None)
    if _zoo_name(source) in TEST_SETS:
        kept, first = load_inputs(source, calibration), 0
    else:
        kept, first = first_of(held_out, calibration), calibration
    if classes is None:
        raise DataError(f"{source} holds no right classes, which an accuracy needs; give --labels")
    if count_of(held_out) <= first:
        raise UsageError(
            f"{source} holds {count_of(held_out)} samples, so none are left after {calibration} "
            "for the calibration; give fewer --calibration-samples"
        )
    window = slice(first, first + samples)
    if isinstance(held_out, dict):
        return kept, {name: values[window] for name, values in held_out.items()}, classes[window]
    return kept, held_out[window], classes[window]


def first_of(samples: "Samples", count: int | None) -> "Samples":
    """Returns the first samples of every input; all where the count is None."""
    if isinstance(samples, dict):
        return {name: values[:count] for name, values in samples.items()}
    return samples[:count]


def load_arrays(paths: Sequence[Path]) -> "list[np.ndarray] | dict[str, np.ndarray]":
    """Reads what a program is run on.

    Args:
        paths: `.npy` files, one for each input in order; or one `.npz` file, alone.

    Returns:
        The arrays in order, or those of the `.npz` file by name.

    Raises:
        DataError: a file holds no plain arrays.
    """
    from photomask.arrays import read_array, read_arrays

    first = paths[0]
    try:
        return read_arrays(first) if first.suffix == ".npz" else [read_array(one) for one in paths]
    except DocumentError as error:
        raise DataError(str(error)) from error


def hyphenated(name: str) -> str:
    """Returns the name of a data set of the zoo as its authors write it, with hyphens."""
    return name.replace("_", "-")


def _zoo_name(source: str) -> str:
    """Returns the zoo's own name of a data set, which may be written with hyphens."""
    from photomask.zoo.sources import DATA_SETS

    return next((name for name in DATA_SETS if hyphenated(name) == source), source)


def _counted(samples: "Samples", count: int | None, source: str) -> "Samples":
    """Returns as many samples as were asked for."""
    from photomask.zoo import count_of

    held = count_of(samples)
    if count is not None and not 1 <= count <= held:
        raise UsageError(f"{source} holds {held} samples, asked for {count}")
    return first_of(samples, count)


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


def device_of(name: str | None) -> "torch.device":
    """Returns where to compute: the device of that name, or else a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {name!r}: {str(error).splitlines()[0]}") from error
    return device

"""Checks the class labels of samples before anything is computed with them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.data import as_tensor
from photomask.errors import DataError


def class_labels(
    labels: object,
    shape: Sequence[int],
    samples: int,
    what: str,
    *,
    ignored: int | None = None,
) -> Tensor:
    """Returns labels as int64, one for each sample, or for each place of a sample.

    Args:
        labels: a tensor, an array or a list of integers.
        shape: the shape of one sample's scores, [classes, ...] without the batch.
        samples: the expected number of samples.
        what: the name of the labels in messages, such as "labels of output 'head'".
        ignored: a number that is not a class and marks places without a class; None if there is
            none.

    Raises:
        DataError: the labels have another dtype or shape, or hold numbers that are not classes.
    """
    classes, *places = shape
    expected = [samples, *places]
    found = label_tensor(labels, what)
    if list(found.shape) != expected:
        raise DataError(
            f"{what} must be integers {expected}, got {found.dtype} {list(found.shape)}"
            f"{_way_out(found, expected, classes)}"
        )
    if found.is_floating_point() or found.dtype is torch.bool or found.is_complex():
        raise DataError(
            f"{what} must be integers {expected}, got {found.dtype} {list(found.shape)}; if they "
            "are class numbers, pass labels.long()"
        )
    wraps = found.dtype is torch.uint64
    found = found.to(torch.int64)
    if wraps and found.numel() and int(found.min()) < 0:
        largest = 2**64 + int(found[found < 0].max())
        raise DataError(
            f"{what} go up to {largest}, beyond int64; the output has {classes} classes, 0 to "
            f"{classes - 1}"
        )
    counted = found if ignored is None else found[found != ignored]
    if not counted.numel():
        return found
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        shifted = (
            "; they seem to count from 1: pass labels - 1" if (low, high) == (1, classes) else ""
        )
        marks = "" if ignored is None else f", and {ignored} marks places without a class"
        raise DataError(
            f"{what} go from {low} to {high}; the output has {classes} classes, 0 to "
            f"{classes - 1}{marks}{shifted}"
        )
    return found


def label_tensor(labels: object, what: str) -> Tensor:
    """Returns labels as a tensor.

    Raises:
        DataError: they are not numbers.
    """
    found = as_tensor(labels)
    if found is not None:
        return found
    if isinstance(labels, (list, tuple)) and all(isinstance(x, (int, float)) for x in labels):
        try:
            return torch.tensor(labels)
        except (OverflowError, RuntimeError, ValueError) as error:
            raise DataError(f"{what} hold a number that no integer of 64 bits can hold") from error
    raise DataError(f"{what} must be a tensor or a list of integers, got {type(labels).__name__}")


def _way_out(found: Tensor, expected: Sequence[int], classes: int) -> str:
    """Returns what labels of another shape may be, and what to pass instead."""
    if found.ndim == len(expected) + 1 and len(found) == expected[0]:
        if found.shape[1] == classes and classes > 1:
            return "; they seem to hold one number for each class: pass labels.argmax(1)"
        if found.shape[1] == 1:
            return "; pass labels[:, 0]"
    if found.ndim == len(expected) and len(found) != expected[0]:
        return f"; there are {expected[0]} samples"
    return ""

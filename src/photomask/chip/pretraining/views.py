"""Provides batches of two views, made from images on the device or given by the user's loader."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from photomask.chip.data import InputForm, as_tensor
from photomask.chip.training.data import (
    Batch,
    BatchData,
    TensorData,
    TrainingData,
    as_training_data,
)
from photomask.chip.training.processes import Processes
from photomask.chip.training.settings import Schedule
from photomask.errors import DataError

Augmentation = Callable[[Tensor], Tensor]
"""Returns a random view of each sample of a batch, on the device of the batch."""
NEEDS_TWO_VIEWS = (
    "pre-training compares two views of each sample; give augment=RandomViews() to make them of "
    "images, or data whose batches are (first view, second view)"
)


class ViewData:
    """Training data whose batches are two views of the same samples.

    Args:
        data: the samples, or the views if there is no augmentation.
        augment: makes one view; None if the data holds two views already.
    """

    def __init__(self, data: TrainingData, augment: Augmentation | None):
        self._data = data
        self._augment = augment

    @property
    def description(self) -> str:
        """The data, and how its views are made."""
        made = "given" if self._augment is None else f"by {_name(self._augment)}"
        return f"{self._data.description}, two views {made}"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches of an epoch."""
        return self._data.steps_per_epoch(batch_size)

    def batches(self, settings: Schedule, processes: Processes, epoch: int) -> Iterator[Batch]:
        """Yields the two views of every batch of an epoch, without labels."""
        for inputs, _ in self._data.batches(settings, processes, epoch):
            if self._augment is not None:
                inputs = [self._augment(inputs[0]), self._augment(inputs[0])]
            yield inputs, None

    def first(self, count: int, device: torch.device) -> Iterator[list[Tensor]]:
        """Yields the first samples in batches, without augmentation."""
        return self._data.first(count, device)


def _name(augment: Augmentation) -> str:
    return getattr(augment, "__qualname__", None) or repr(augment)


def example_of(data: Any) -> list[Tensor]:
    """Returns up to two samples of each tensor of the first batch, on the CPU.

    Raises:
        DataError: there are no tensors.
        UsageError: the data can be iterated only once.
    """
    if isinstance(data, TensorData):
        found = list(data.inputs)
    else:
        found = _tensors(data)
        if len(found) > 2:  # a list of batches, and not of views
            found = found[:1]
        if not found and not isinstance(data, Mapping):
            batches = data if isinstance(data, BatchData) else BatchData(data)
            # A loader that shuffles must not change the random state of the user.
            with torch.random.fork_rng(devices=[]):
                found = _tensors(batches.first_item())
    if not found or not found[0].ndim or not len(found[0]):
        raise DataError(
            "training needs samples: a tensor, a pair of tensors, or batches of them; found "
            f"{type(data).__name__} without any"
        )
    return [x[:2].cpu() for x in found]


def _tensors(item: Any) -> list[Tensor]:
    """Returns the tensors of an item, or none where it is not a tensor or a row of tensors."""
    if (alone := as_tensor(item)) is not None:
        return [alone]
    if isinstance(item, (tuple, list)):
        found = [as_tensor(x) for x in item]
        return [x for x in found if x is not None] if None not in found else []
    return []


def as_view_data(
    data: Any, example: list[Tensor], augment: Augmentation | None, device: torch.device
) -> ViewData:
    """Returns the data of a pre-training in the form that the training loop needs.

    Args:
        data: the samples, or pairs of views, in any form that `pretrain` takes.
        example: the result of `example_of(data)`.
        augment: makes one view; None if the data holds two views already.
        device: the device of the training.

    Raises:
        DataError: the data holds one view only, or samples do not fit together.
    """
    shape = tuple(example[0].shape[1:])
    if augment is not None:
        forms = [InputForm("samples", shape, None, device)]
    elif len(example) < 2 or example[1].shape[1:] != example[0].shape[1:]:
        shapes = " and ".join(str(list(x.shape[1:])) for x in example)
        raise DataError(f"{NEEDS_TWO_VIEWS}; found samples of the shape {shapes}")
    else:
        forms = [InputForm(n, shape, None, device) for n in ("first_view", "second_view")]
    return ViewData(as_training_data(data, forms, None), augment)

"""Provides training data: tensors that stay on the device, or batches of a loader."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from photomask.chip.data import Array, InputForm, as_batch, as_tensor, checked_input, read_batch
from photomask.chip.labels import label_tensor
from photomask.chip.training.processes import Processes
from photomask.chip.training.settings import Schedule
from photomask.errors import DataError, UsageError

BLOCK = 4096
"""The number of samples that are shuffled and augmented at once."""

Batch = tuple[list[Tensor], Tensor | None]
"""One tensor for each input, and the labels, or None without labels."""
LabelCheck = Callable[[Tensor, int], Tensor]
"""Converts labels, given the number of samples, for a loss, or raises a DataError."""


class TrainingData(Protocol):
    """The data of a training, as the training loop needs it."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches of an epoch."""
        ...

    def batches(self, settings: Schedule, processes: Processes, epoch: int) -> Iterator[Batch]:
        """Yields this process's part of every batch of an epoch, on the process's device."""
        ...

    def first(self, count: int, device: torch.device) -> Iterator[list[Tensor]]:
        """Yields the inputs of about `count` samples, without augmentation, for calibration."""
        ...

    @property
    def description(self) -> str:
        """A description of the data, which a checkpoint holds."""
        ...


class TensorData:
    """Samples that stay on the device, and that are shuffled anew for each epoch.

    The order depends only on the seed and the epoch. Each process takes its part of every batch, so
    that several processes together see in a step the same samples as one process with the same
    `batch_size`.

    Args:
        inputs: tensors or arrays with the samples at axis 0; a sequence of them for a model with
            several inputs.
        labels: one label for each sample; None where the loss needs none.
        augment: a function that changes a batch of the first input, on its device. It draws from
            PyTorch's own generators, which are seeded for every epoch and process.

    Raises:
        DataError: there are no samples, the number of labels differs, or a value is NaN or
            infinite.
    """

    def __init__(
        self,
        inputs: Array | Sequence[Array],
        labels: Any = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ):
        alone = as_tensor(inputs)
        found = [alone] if alone is not None else [as_tensor(x) for x in inputs]
        self.inputs = [x for x in found if x is not None]
        if len(self.inputs) != len(found):
            raise DataError(
                "the inputs of training must be tensors or arrays, one for each input of the model"
            )
        self.labels = None if labels is None else label_tensor(labels, "the labels of training")
        self.augment = augment
        counts = [len(x) for x in self.inputs] + ([] if labels is None else [len(labels)])
        if not counts or not counts[0] or len(set(counts)) > 1:
            raise DataError(
                "training needs at least one sample, and the same number for each input and the "
                f"labels; found {counts}"
            )
        for x in self.inputs:
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                raise DataError("the training inputs hold NaN or infinity; remove such samples")

    def check(self, forms: Sequence[InputForm], labels: LabelCheck | None) -> None:
        """Converts the samples for the inputs of a model, and the labels for its loss.

        Args:
            forms: the forms of the model's inputs, in order.
            labels: converts labels for the loss; None where nothing reads them.

        Raises:
            DataError: the samples do not fit the model, or the labels do not fit the loss.
        """
        if len(forms) != len(self.inputs):
            raise DataError(
                f"the model has {len(forms)} input(s), but training got {len(self.inputs)}; give "
                "one tensor for each input"
            )
        pairs = zip(forms, self.inputs, strict=True)
        self.inputs = [checked_input(form, x, "training data") for form, x in pairs]
        if labels is not None and self.labels is not None:
            self.labels = labels(self.labels, len(self.inputs[0]))

    @property
    def description(self) -> str:
        """The shapes of the inputs, and whether there are labels."""
        shapes = ", ".join(str(list(x.shape)) for x in self.inputs)
        return f"{shapes}, {'no' if self.labels is None else 'with'} labels"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of whole batches.

        Raises:
            DataError: there are fewer samples than a batch has.
        """
        steps = len(self.inputs[0]) // batch_size
        if not steps:
            raise DataError(
                f"{len(self.inputs[0])} samples are fewer than a batch of {batch_size}; choose a "
                "smaller batch_size"
            )
        return steps

    def batches(self, settings: Schedule, processes: Processes, epoch: int) -> Iterator[Batch]:
        """Yields this process's part of every batch of an epoch, on the process's device."""
        device = processes.device
        self.inputs = [x.to(device) for x in self.inputs]
        self.labels = None if self.labels is None else self.labels.to(device)
        steps = self.steps_per_epoch(settings.batch_size)
        generator = torch.Generator().manual_seed(seed_of(settings.seed, epoch, 0))
        order = torch.randperm(len(self.inputs[0]), generator=generator)
        order = order[: steps * settings.batch_size].reshape(steps, settings.batch_size)
        size = processes.part_of(settings.batch_size)
        order = order[:, processes.index * size : (processes.index + 1) * size].to(device)
        for rows in order.split(max(1, BLOCK // size)):
            block = [x[rows.reshape(-1)] for x in self.inputs]
            if self.augment is not None:
                block[0] = self.augment(block[0])
            parts = [x.split(size) for x in block]
            for number, row in enumerate(rows):
                labels = None if self.labels is None else self.labels[row]
                yield [_laid_out(part[number]) for part in parts], labels

    def first(self, count: int, device: torch.device) -> Iterator[list[Tensor]]:
        """Yields the first samples in batches, without augmentation."""
        for parts in zip(*(x[:count].split(256) for x in self.inputs), strict=True):
            yield [part.to(device) for part in parts]


class BatchData:
    """Batches of an iterable, such as a `DataLoader`, which is iterated once per epoch.

    PyTorch's generators are seeded before each epoch, so a loader that shuffles by them gives a
    resumed training the same batches. Where several processes train, the loader must give each
    process its part, as the result of `accelerator.prepare(loader)` does.

    Args:
        batches: an iterable with a length that yields batches in any form that
            `photomask.chip.data` describes, such as `(inputs, labels)`.

    Raises:
        UsageError: `batches` has no length, or can be iterated only once.
        DataError: `batches` is empty.
    """

    def __init__(self, batches: Iterable[Any]):
        if not hasattr(batches, "__len__") or iter(batches) is batches:
            raise UsageError(
                "training iterates over its data in every epoch; give tensors, a DataLoader or a "
                f"list of (inputs, labels), found a {type(batches).__name__}"
            )
        self._batches: Any = batches
        self._forms: Sequence[InputForm] = ()
        self._label_check: LabelCheck | None = None
        if not len(self._batches):
            raise DataError("training needs at least one batch, but the data holds none")

    def first_item(self) -> Any:
        """Returns the first batch as the iterable yields it."""
        return next(iter(self._batches))

    def check(self, forms: Sequence[InputForm], labels: LabelCheck | None) -> None:
        """Sets the forms that inputs are converted to, and the conversion of labels."""
        self._forms, self._label_check = forms, labels

    @property
    def description(self) -> str:
        """The number of batches."""
        return f"{len(self._batches)} batches"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches, which the loader decides."""
        return len(self._batches)

    def batches(self, settings: Schedule, processes: Processes, epoch: int) -> Iterator[Batch]:
        """Yields every batch, moved to the device."""
        if hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(epoch)
        for batch in self._batches:
            found = read_batch(self._forms, batch, what="training data")
            labels = found.labels
            if labels is not None:
                labels = label_tensor(labels, "the labels of a batch")
                if self._label_check is not None:
                    labels = self._label_check(labels, len(found.inputs[0]))
                labels = labels.to(processes.device, non_blocking=True)
            yield [_laid_out(x) for x in found.inputs], labels

    def first(self, count: int, device: torch.device) -> Iterator[list[Tensor]]:
        """Yields the inputs of the first batches."""
        for batch in self._batches:
            inputs = read_batch(self._forms, batch, what="training data").inputs
            yield [x.to(device) for x in inputs]
            count -= len(inputs[0])
            if count <= 0:
                return


def as_training_data(
    data: Any,
    forms: Sequence[InputForm],
    labels: LabelCheck | None,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> TensorData | BatchData:
    """Returns the data of a training in the form that the training loop needs.

    Args:
        data: the data, in any form that `train` takes.
        forms: the forms of the model's inputs.
        labels: converts labels for the loss; None where nothing reads them.
        augment: a function that changes a batch of the first input.

    Raises:
        UsageError: `augment` is given with batches of a loader, which must augment them itself.
        DataError: the samples do not fit the model, or the labels do not fit its outputs.
    """
    if not isinstance(data, TensorData | BatchData):
        pair = isinstance(data, (tuple, list)) and len(data) == 2 and len(forms) == 1
        pair = pair and as_tensor(data[0]) is not None and as_tensor(data[1]) is not None
        whole = None
        if pair or not hasattr(data, "__next__"):
            whole = as_batch(forms, data, "training data", inside=pair)
        if whole is None and augment is not None:
            raise UsageError(
                "augment works with tensors that stay on the device, but the data is an iterable "
                "of batches; augment the samples in the loader"
            )
        given = TensorData(whole.inputs, whole.labels, augment) if whole else BatchData(data)
    else:
        given = data
    given.check(forms, labels)
    return given


def seed_of(seed: int, epoch: int, process: int) -> int:
    """Returns a seed for one epoch of one process."""
    return ((seed * 1_000_003 + epoch) * 4099 + process) % 2**63


def _laid_out(x: Tensor) -> Tensor:
    """Returns images in memory format channels-last, with which convolutions are fastest."""
    images = x.ndim == 4 and x.is_floating_point()
    return x.contiguous(memory_format=torch.channels_last) if images else x

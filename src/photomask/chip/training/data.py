"""Training data: tensors that stay on the device, or batches of the user's own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from photomask.chip.data import Array, InputForm, as_batch, as_tensor, checked_input, read_batch
from photomask.chip.labels import label_tensor
from photomask.chip.training.processes import Processes
from photomask.chip.training.settings import TrainingSettings
from photomask.errors import DataError, UsageError

BLOCK = 4096
"""Samples that are shuffled and augmented at once."""

Batch = tuple[list[Tensor], Tensor | None]
"""One tensor for each input, and labels where there are any."""
LabelCheck = Callable[[Tensor, int], Tensor]
"""Labels and the number of their samples → what a loss reads; refuses what it cannot read."""


class TrainingData(Protocol):
    """What the loop asks of data."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns how many batches an epoch has."""
        ...

    def batches(
        self, settings: TrainingSettings, processes: Processes, epoch: int
    ) -> Iterator[Batch]:
        """Yields this process's part of every batch of an epoch, on its device."""
        ...

    def first(self, count: int, device: torch.device) -> Iterator[list[Tensor]]:
        """Yields inputs as they are, about `count` samples, for calibration."""
        ...

    @property
    def description(self) -> str:
        """What a checkpoint knows of the data."""
        ...


class TensorData:
    """Samples that stay on the device, in an order of their own each epoch.

    The order depends on seed and epoch alone. Each process takes its part of every batch, so that
    two processes see in a step what one process with the same `batch_size` sees.

    Args:
        inputs: samples at axis 0, tensors or arrays; a sequence for a model with several inputs.
        labels: one for each sample; None where the loss needs none.
        augment: changes a batch of the first input, on its device; draws from PyTorch's own
            generators, which are seeded for every epoch and process.

    Raises:
        DataError: no samples, another number of labels, NaN or infinity.
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
            raise DataError("the inputs of training must be tensors or arrays")
        self.labels = None if labels is None else label_tensor(labels, "the labels of training")
        self.augment = augment
        counts = [len(x) for x in self.inputs] + ([] if labels is None else [len(labels)])
        if not counts or not counts[0] or len(set(counts)) > 1:
            raise DataError(f"training needs samples, one label each; found {counts} of them")
        for x in self.inputs:
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                raise DataError("the training inputs hold NaN or infinity")

    def check(self, forms: Sequence[InputForm], labels: LabelCheck | None) -> None:
        """Brings samples to what a model takes, and labels to what its loss reads."""
        if len(forms) != len(self.inputs):
            raise DataError(f"the model has {len(forms)} input(s), training got {len(self.inputs)}")
        pairs = zip(forms, self.inputs, strict=True)
        self.inputs = [checked_input(form, x, "training data") for form, x in pairs]
        if labels is not None and self.labels is not None:
            self.labels = labels(self.labels, len(self.inputs[0]))

    @property
    def description(self) -> str:
        """How many samples there are, of which shapes."""
        shapes = ", ".join(str(list(x.shape)) for x in self.inputs)
        return f"{shapes}, {'no' if self.labels is None else 'with'} labels"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns how many whole batches there are."""
        steps = len(self.inputs[0]) // batch_size
        if not steps:
            raise DataError(
                f"{len(self.inputs[0])} samples make no batch of {batch_size}; choose a smaller "
                "batch_size"
            )
        return steps

    def batches(
        self, settings: TrainingSettings, processes: Processes, epoch: int
    ) -> Iterator[Batch]:
        """Yields this process's part of every batch of an epoch, on its device."""
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
        """Yields the first samples as they are, in batches."""
        for parts in zip(*(x[:count].split(256) for x in self.inputs), strict=True):
            yield [part.to(device) for part in parts]


class BatchData:
    """Batches of the user's own: an iterable, such as a `DataLoader`, that is walked every epoch.

    PyTorch's generators are seeded before each epoch, so a loader that shuffles by them gives a
    resumed training the same batches. Where several processes train, the loader gives each its
    part (`accelerator.prepare(loader)` does).

    Args:
        batches: yields batches in any form that `photomask.chip.data` describes, such as
            `(inputs, labels)`; has a length.

    Raises:
        UsageError: it has no length.
        DataError: it is empty.
    """

    def __init__(self, batches: Iterable[Any]):
        if not hasattr(batches, "__len__") or iter(batches) is batches:
            raise UsageError(
                "training walks its data every epoch: give tensors, a DataLoader or a list of "
                f"(inputs, labels), not a {type(batches).__name__}"
            )
        self._batches: Any = batches
        self._forms: Sequence[InputForm] = ()
        self._label_check: LabelCheck | None = None
        if not len(self._batches):
            raise DataError("training needs at least one batch, got none")

    def check(self, forms: Sequence[InputForm], labels: LabelCheck | None) -> None:
        """Says what every batch is brought to: inputs that a model takes, labels of its loss."""
        self._forms, self._label_check = forms, labels

    @property
    def description(self) -> str:
        """How many batches there are."""
        return f"{len(self._batches)} batches"

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns how many batches there are."""
        return len(self._batches)

    def batches(
        self, settings: TrainingSettings, processes: Processes, epoch: int
    ) -> Iterator[Batch]:
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
    """Returns tensors or batches as the loop takes them.

    Args:
        data: as `train` takes it.
        forms: of the model's inputs.
        labels: brings labels to what the loss reads; None where nothing reads them.
        augment: changes a batch of the first input.

    Raises:
        UsageError: `augment` with batches, which their loader must do itself.
        DataError: the samples do not fit the model, or the labels its outputs.
    """
    if not isinstance(data, TensorData | BatchData):
        pair = isinstance(data, (tuple, list)) and len(data) == 2 and len(forms) == 1
        pair = pair and as_tensor(data[0]) is not None and as_tensor(data[1]) is not None
        whole = None
        if pair or not hasattr(data, "__next__"):
            whole = as_batch(forms, data, "training data", inside=pair)
        if whole is None and augment is not None:
            raise UsageError(
                "augment changes tensors that stay on the device; a loader has its own"
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
    """Lays images out as convolutions read them fastest."""
    images = x.ndim == 4 and x.is_floating_point()
    return x.contiguous(memory_format=torch.channels_last) if images else x

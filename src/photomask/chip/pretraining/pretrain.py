"""Pre-trains an encoder without labels, in the same loop that trains prepared models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.default_dtype import float32_by_default
from photomask.chip.pretraining.method import Method
from photomask.chip.pretraining.projector import WIDTHS, make_projector
from photomask.chip.pretraining.trainee import FloatTrainee
from photomask.chip.pretraining.trying import device_of, features_of
from photomask.chip.pretraining.views import (
    NEEDS_TWO_VIEWS,
    Augmentation,
    as_view_data,
    example_of,
)
from photomask.chip.training.callbacks import Callback
from photomask.chip.training.loop import Run
from photomask.chip.training.processes import find_processes, seeded
from photomask.chip.training.report import EpochRecord, TrainingReport
from photomask.chip.training.settings import Schedule
from photomask.errors import DataError, TrainingError
from photomask.report import Progress, without_progress
from photomask.stages import stage

SMALLEST_SPREAD = 1e-6
"""A dimension has no variance if its standard deviation is below this share of its size."""


@stage(__name__, "pretrain")
@float32_by_default()
def pretrain(
    encoder: nn.Module,
    data: Any,
    settings: Schedule,
    method: Method,
    *,
    augment: Augmentation | None = None,
    projector_widths: Sequence[int] = WIDTHS,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    device: torch.device | str | None = None,
    accelerator: Any | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    progress: Progress = without_progress,
) -> TrainingReport:
    """Trains an encoder on samples without labels.

    Each step makes two random views of every sample, encodes and projects both, and lowers the loss
    of the method. The loop is that of `photomask.chip.training.train`, so it trains on a CPU, on a
    GPU and in launched processes, and a checkpoint resumes with the result of an uninterrupted
    training. Each process compares the samples of its own part of a batch.

    Args:
        encoder: a module that returns features, [samples, features], such as
            `without_head(classifier, ...)`. It is changed in place; at the end it is on its old
            device and in evaluation mode.
        data: a tensor of samples, or batches with a length, such as a `DataLoader`. Labels are not
            read.
        settings: the schedule.
        method: the loss, such as `BarlowTwins()`.
        augment: makes a random view of each sample of a batch on its device, such as
            `RandomViews()`. None if the batches of the data are pairs of views already.
        projector_widths: the widths of the projector's layers.
        callbacks: objects that are called at the ends of epochs and steps.
        checkpoint: a folder for the model, the optimizer and the average after every epoch.
        resume: True continues from `checkpoint`.
        compiled: True runs model and loss through `torch.compile`.
        device: the device of the training; None for a GPU if there is one.
        accelerator: an `accelerate.Accelerator` of your own.
        observe: is called in the first process with the record of each epoch when the epoch ends.
        progress: shows the steps of an epoch.

    Returns:
        The losses and times of the epochs.

    Raises:
        DataError: there are no samples, no two views of them, or only one in a batch.
        UsageError: the encoder returns no features, or `checkpoint` holds a training already.
        TrainingError: a loss or a gradient is not finite, the embeddings have collapsed, or
            `checkpoint` belongs to another run.
    """
    processes = find_processes(accelerator, device)
    example = example_of(data)
    views = as_view_data(data, example, augment, processes.device)
    before = device_of(encoder, "encoder")
    with seeded(settings.seed, torch.device("cpu")):
        branches = Branches(encoder, method, example[0], projector_widths)
    description = f"{method!r}, projector {list(projector_widths)}"
    trainee = Pretraining(branches, settings, description)
    try:
        run = Run(trainee, views, settings, callbacks, processes, compiled)
        if processes.part_of(settings.batch_size) < 2:
            raise DataError(ONE_SAMPLE)
        run.complete(checkpoint, resume, observe, progress)
    finally:
        encoder.to(before).eval()
        if method.host is not None:
            method.host.to(before).eval()
    return run.report()


ONE_SAMPLE = (
    "a batch of one sample has no variance over its samples, which pre-training compares; use "
    "batches of two samples or more in every process (drop_last=True leaves out a smaller last one)"
)


class Branches(nn.Module):
    """The modules that learn: an encoder with a projector, and the same of a host.

    Args:
        encoder: the encoder that is wanted.
        method: the method, which may have a host.
        example: some samples.
        widths: the widths of the projectors.

    Raises:
        UsageError: the encoder or the host returns no features.
    """

    def __init__(self, encoder: nn.Module, method: Method, example: Tensor, widths: Sequence[int]):
        super().__init__()
        self.method = method
        self.encoder = encoder
        self.projector = make_projector(features_of(encoder, example, "encoder").shape[1], widths)
        self.host = method.host
        if self.host is not None:
            features = features_of(self.host, example, "host of the method")
            self.host_projector = make_projector(features.shape[1], widths)

    def embeddings(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Returns the wanted encoder's embedding of each view, float32 [samples, dimensions]."""
        return [self.projector(self.encoder(view)).float() for view in views]

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Returns the loss of two views, []."""
        own, hosted = self.embeddings(views), []
        if self.host is not None:
            hosted = [self.host_projector(self.host(view)).float() for view in views]
        with torch.autocast(own[0].device.type, enabled=False):
            return self.method.total(own, hosted)


class Pretraining(FloatTrainee):
    """Branches as the training loop sees them."""

    remedy = "try a lower learning rate, a warm-up, or larger batches"

    def __init__(self, branches: Branches, schedule: Schedule, description: str):
        super().__init__(branches, lambda views, _: branches(views), schedule, description)
        self._branches = branches
        self._last: list[Tensor] = []

    def check_batch(self, inputs: Sequence[Tensor], labels: Tensor | None) -> None:
        """Refuses a batch without two equal views, or of one sample."""
        if len(inputs) != 2 or inputs[0].shape != inputs[1].shape:
            shapes = ", ".join(str(list(x.shape)) for x in inputs)
            raise DataError(f"{NEEDS_TWO_VIEWS}; found a batch with the shapes {shapes}")
        if len(inputs[0]) < 2:
            raise DataError(ONE_SAMPLE)
        self._last = list(inputs)

    def end_epoch(self) -> None:
        """Refuses embeddings of which a dimension is the same for all samples."""
        self._branches.eval()
        with torch.no_grad():
            flat = _dimensions_without_variance(self._branches.embeddings(self._last)[0])
        self._branches.train()
        self._last = []
        if flat:
            raise TrainingError(f"{flat}; {self.remedy}, or a method that keeps the variance")

    @torch.no_grad()
    def first_bad_place(self, inputs: Sequence[Tensor]) -> str:
        """Says whether the embeddings have collapsed, or which module made NaN first."""
        embeddings = self._branches.embeddings(inputs)
        if all(bool(torch.isfinite(x).all()) for x in embeddings):
            for found in map(_dimensions_without_variance, embeddings):
                if found:
                    return found
        return super().first_bad_place(inputs)


def _dimensions_without_variance(embeddings: Tensor) -> str:
    """Returns a sentence about the dimensions without variance, or nothing if all have one."""
    deviation = embeddings.std(dim=0)
    size = embeddings.square().mean(dim=0).sqrt()
    flat = deviation <= SMALLEST_SPREAD * size
    if not bool(flat.any()):
        return ""
    return (
        f"the embeddings have collapsed: {int(flat.sum())} of {len(flat)} dimensions are the same "
        f"for all {len(embeddings)} samples of a batch, the first of them dimension "
        f"{int(flat.nonzero()[0])}"
    )

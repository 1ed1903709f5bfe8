"""Fine-tunes a float classifier on labelled samples, in the same loop as pre-training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.data import InputForm
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.pretraining.trainee import FloatTrainee
from photomask.chip.pretraining.trying import device_of, output_of
from photomask.chip.pretraining.views import Augmentation, example_of
from photomask.chip.training.callbacks import Callback
from photomask.chip.training.data import as_training_data
from photomask.chip.training.loop import Run
from photomask.chip.training.losses import Loss, cross_entropy, cross_entropy_labels
from photomask.chip.training.processes import find_processes
from photomask.chip.training.report import EpochRecord, TrainingReport
from photomask.chip.training.settings import Schedule
from photomask.errors import DataError, UsageError
from photomask.report import Progress, without_progress
from photomask.stages import stage


@stage(__name__, "fine_tune")
@float32_by_default()
def fine_tune(
    model: nn.Module,
    data: Any,
    settings: Schedule,
    *,
    loss: Loss | None = None,
    augment: Augmentation | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    device: torch.device | str | None = None,
    accelerator: Any | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    progress: Progress = without_progress,
) -> TrainingReport:
    """Trains a float classifier on labelled samples, often few of them.

    All parameters learn, those of the pre-trained encoder and those of the new layer at its end.
    A model whose encoder was frozen by `requires_grad_(False)` learns the rest.

    Args:
        model: a module that returns logits, [samples, classes], such as `encoder.classifier()`. It
            is changed in place; at the end it is on its old device and in evaluation mode.
        data: `(inputs, labels)` tensors, or batches of them with a length.
        settings: the schedule.
        loss: a function of the outputs, in a tuple, and the labels; None for the cross-entropy.
        augment: a function that changes a batch of inputs on its device, for tensors as `data`.
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
        DataError: there are no samples or no labels, the labels are fewer than the samples, or they
            are no classes of the model.
        UsageError: the model returns no logits, or `checkpoint` holds a training already.
        TrainingError: a loss or a gradient is not finite, or `checkpoint` belongs to another run.
    """
    processes = find_processes(accelerator, device)
    sample = example_of(data)[0]
    before = device_of(model, "model")
    logits = output_of(model, sample, "model")
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        raise UsageError(
            "the model to fine-tune must return one tensor of logits, [samples, classes]; found "
            f"{list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}"
        )
    form = InputForm("samples", tuple(sample.shape[1:]), None, processes.device)
    reads = cross_entropy_labels([1, *logits.shape[1:]]) if loss is None else None
    found = as_training_data(data, [form], reads, augment)
    trainee = FineTuning(model, loss or cross_entropy(), settings)
    try:
        run = Run(trainee, found, settings, callbacks, processes, compiled)
        run.complete(checkpoint, resume, observe, progress)
    finally:
        model.to(before).eval()
    return run.report()


class FineTuning(FloatTrainee):
    """A classifier as the training loop sees it."""

    def __init__(self, model: nn.Module, loss: Loss, schedule: Schedule):
        def objective(inputs: list[Tensor], labels: Tensor | None) -> Tensor:
            outputs = model(*inputs)
            return outputs.sum() if labels is None else loss((outputs,), labels)

        super().__init__(model, objective, schedule, f"fine-tuning of {type(model).__name__}")

    def check_batch(self, inputs: Sequence[Tensor], labels: Tensor | None) -> None:
        """Refuses data without labels."""
        if labels is None:
            raise DataError(
                "the data has no labels, which fine-tuning needs; give (inputs, labels)"
            )

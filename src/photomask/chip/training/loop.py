"""Trains a prepared model on data by a schedule."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.calibration import fit_biases, input_forms
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import check_quantizer
from photomask.chip.standing import Effect
from photomask.chip.training.averaging import WeightAverage
from photomask.chip.training.batch_norm import (
    fold_batch_norms,
    freeze_batch_norms,
    measure_batch_norms,
)
from photomask.chip.training.callbacks import Callback
from photomask.chip.training.checkpoint import (
    OUTPUT,
    files_of_earlier,
    frozen_parameters,
    is_weights,
    load_checkpoint,
    save_checkpoint,
)
from photomask.chip.training.data import (
    BatchData,
    TensorData,
    as_training_data,
    seed_of,
)
from photomask.chip.training.documents import CheckpointDocument
from photomask.chip.training.health import Health
from photomask.chip.training.losses import (
    Loss,
    cross_entropy,
    cross_entropy_labels,
    mixed_loss,
)
from photomask.chip.training.objective import compile_objective, make_objective
from photomask.chip.training.optimization import (
    ScaleFloor,
    make_optimizer,
    quantizer_parameters,
)
from photomask.chip.training.processes import (
    Processes,
    find_processes,
    is_first_process,
    seeded,
)
from photomask.chip.training.report import EpochRecord, TrainingReport
from photomask.chip.training.settings import TrainingSettings
from photomask.chip.training.teacher import float_model
from photomask.chip.training.widths import least_bits, refit, set_least_bits
from photomask.documents import refuse_foreign
from photomask.errors import DataError, PhotomaskError, QuantizerError, TrainingError, UsageError
from photomask.report import Progress, without_progress
from photomask.stages import stage

_LOG = logging.getLogger(__name__)

MEASURED_BATCHES = 200
"""The number of batches that measure the statistics of batch norms at the end."""


@stage(__name__, "train")
@float32_by_default()
def train(
    prepared: PreparedModel,
    data: Any,
    settings: TrainingSettings,
    *,
    loss: Loss | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    teacher: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
    compiled: bool = False,
    device: torch.device | str | None = None,
    accelerator: Any | None = None,
    observe: Callable[[EpochRecord], None] | None = None,
    progress: Progress = without_progress,
) -> TrainingReport:
    """Trains the weights, the biases and the learned scales of a prepared model.

    The same call trains on a CPU, on a GPU, and in all processes that `accelerate launch` started.

    Args:
        prepared: the calibrated model. It is changed in place; at the end it is on its old device
            and in evaluation mode, ready for `convert`.
        data: `(inputs, labels)` tensors, which stay on the device, or batches with a length, such
            as a `DataLoader`, in any form that `photomask.chip.data` describes.
        settings: the schedule.
        loss: a function of outputs and labels; None for the cross-entropy of the first output.
        augment: a function that changes a batch of inputs on its device, for tensors as `data`.
        teacher: the model whose first output is distilled; None for the float model of `prepared`.
        callbacks: objects that are called at the ends of epochs and steps.
        checkpoint: a folder for the model, the optimizer and the average after every epoch.
        resume: True continues from `checkpoint`, with the result of an uninterrupted training.
        compiled: True runs model and loss through `torch.compile`; on a GPU also as a CUDA graph.
        device: the device of the training; None for a GPU if there is one.
        accelerator: an `accelerate.Accelerator` of your own.
        observe: is called in the first process with the record of each epoch when the epoch ends.
            It serves curves and logs, and is not part of the checkpoint.
        progress: shows the steps of an epoch; `photomask.report.show_progress` draws a bar.

    Returns:
        The losses and times of the epochs.

    Raises:
        OrderError: the model is not calibrated, or weights were changed by hand since.
        QuantizerError: a quantizer breaks a law of its contract, which the message names.
        DataError: there are no data or no labels, samples do not fit the model, labels are no
            classes of the first output, or a batch norm gets one value per channel.
        TrainingError: a loss or a gradient is not finite, or `checkpoint` belongs to another run.
        UsageError: `checkpoint` holds a training already, and `resume` is False.
        MissingDependencyError: several processes were launched without accelerate.
    """
    before = next(prepared.parameters()).device
    first = prepared.graph.by_name[prepared.graph.outputs[0]].shape
    reads = cross_entropy_labels(first) if loss is None and settings.distillation < 1 else None
    # The state of the other processes is not checked, because the first one's replaces it.
    checked = is_first_process() and not resume
    with prepared.standing.call("train", Effect.TRAINS, prepared, checked=checked):
        processes = find_processes(accelerator, device)
        forms = input_forms(prepared.graph, processes.device)
        run = _Run(
            prepared,
            as_training_data(data, forms, reads, augment),
            settings,
            mixed_loss(
                loss or cross_entropy(settings.label_smoothing),
                settings.distillation,
                settings.temperature,
            ),
            teacher,
            callbacks,
            processes,
            compiled,
        )
        try:
            run.start(checkpoint, resume)
            for epoch in range(len(run.records), settings.epochs):
                run.epoch(epoch, progress)
                run.save(checkpoint)
                if observe is not None and processes.index == 0:
                    observe(run.records[-1])
            run.finish()
        finally:
            prepared.to(before).eval()
    return run.report()


class _Run:
    """One training: the model, and the state that changes with it."""

    def __init__(
        self,
        prepared: PreparedModel,
        data: TensorData | BatchData,
        settings: TrainingSettings,
        loss: Callable[..., Tensor],
        teacher: nn.Module | None,
        callbacks: Sequence[Callback],
        processes: Processes,
        compiled: bool,
    ):
        self.prepared = prepared
        self.data = data
        self.settings = settings
        self.callbacks = callbacks
        self.processes = processes
        self.records: list[EpochRecord] = []
        self.steps = data.steps_per_epoch(settings.batch_size)
        taught = None
        if settings.distillation > 0:
            taught = float_model(prepared, teacher, processes.device)
        prepared.to(processes.device)
        processes.broadcast(prepared)
        self.objective = make_objective(
            prepared, taught, loss, device=processes.device, bfloat16=settings.bfloat16
        )
        if compiled:
            self.objective = compile_objective(self.objective, processes.device)
        self.optimizer = make_optimizer(prepared, settings)
        self.average = WeightAverage(prepared, settings.average_decay)
        self.floor = ScaleFloor(prepared)
        self.health = Health(prepared, processes.device)

    def start(self, checkpoint: Path | None, resume: bool) -> None:
        """Loads the checkpoint of a resumed training, or checks that a new one can start."""
        if not resume:
            if checkpoint is not None and is_weights(checkpoint):
                raise UsageError(
                    f"{checkpoint} holds a training already; resume it, or choose another folder"
                )
            if checkpoint is not None:
                refuse_foreign(checkpoint, OUTPUT, files_of_earlier)
            check_quantizers(self.prepared)
            return
        if checkpoint is None or not is_weights(checkpoint):
            raise UsageError(f"there is no checkpoint to resume from at {checkpoint}")
        found = load_checkpoint(
            checkpoint, self.prepared, self._document(), self.optimizer, self.average.tensors
        )
        self.records = list(found.epochs)
        self.average.steps = found.averaged_steps
        self.floor = ScaleFloor(self.prepared)
        for callback, state in zip(self.callbacks, found.callbacks, strict=True):
            callback.restore(state)

    def epoch(self, epoch: int, progress: Progress) -> None:
        """Trains one epoch, after making the changes that the schedule plans for it."""
        started = time.perf_counter()
        device = self.processes.device
        with seeded(seed_of(self.settings.seed, epoch, self.processes.index), device):
            self._change_widths(epoch)
            if self.settings.is_last_share(epoch, self.settings.frozen_scale_share):
                for parameter in quantizer_parameters(self.prepared):
                    parameter.requires_grad_(False)
            share = self.settings.frozen_batch_norm_share
            freeze_batch_norms(self.prepared, self.settings.is_last_share(epoch, share))
            for callback in self.callbacks:
                callback.on_epoch_start(self.prepared, epoch)
            self.prepared.train()
            good = {name: value.clone() for name, value in self.prepared.state_dict().items()}
            rate = self.settings.learning_rate * self._factor(epoch * self.steps)
            try:
                loss = self._steps(epoch, progress)
            except PhotomaskError:
                self.prepared.load_state_dict(good)
                raise
        self.records.append(
            EpochRecord(
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                least_bits=least_bits(self.prepared),
                seconds=time.perf_counter() - started,
            )
        )
        _LOG.info("%s", self.records[-1])
        for callback in self.callbacks:
            callback.on_epoch_end(self.prepared, epoch, loss)

    def _steps(self, epoch: int, progress: Progress) -> float:
        """Runs the steps of an epoch, and returns their mean loss."""
        total = torch.zeros((), device=self.processes.device)
        numbers: Sequence[int] = range(epoch * self.steps, (epoch + 1) * self.steps)
        label = f"epoch {epoch + 1} of {self.settings.epochs}"
        batches = self.data.batches(self.settings, self.processes, epoch)
        for step, (inputs, labels) in zip(progress(numbers, label), batches, strict=False):
            total += self._step(step, inputs, labels)
        self._demand_health(None)
        self.processes.average([total, *self.prepared.batch_norms.buffers()])
        return float(total) / self.steps

    def _step(self, step: int, inputs: list[Tensor], labels: Tensor | None) -> Tensor:
        """Runs one step, and returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._factor(step)
        self.optimizer.zero_grad(set_to_none=True)
        if labels is None and self.settings.distillation < 1:
            raise DataError("the data has no labels; give labels, or set distillation to 1")
        loss = self.objective(inputs, labels)
        loss.backward()
        self.processes.average([p.grad for p in self.prepared.parameters() if p.grad is not None])
        self.health.record(step, loss)
        if self.health.is_due:
            self._demand_health(inputs)
        self.optimizer.step()
        self.floor.apply()
        if self.settings.average_decay:
            self.average.update()
        for callback in self.callbacks:
            callback.on_step_end(self.prepared, step)
        return loss.detach()

    def _demand_health(self, inputs: list[Tensor] | None) -> None:
        """Raises an error where the loss or a gradient of a step was not finite."""
        problem = self.health.problem()
        if problem is None:
            return
        if inputs is not None and "loss" in problem and self.processes.device.type == "cpu":
            problem += f"; {self.health.first_bad_edge(inputs)}"
        raise TrainingError(
            f"training diverged: {problem}. The model is as it was when the epoch began, and so is "
            "the checkpoint; try a lower learning rate, or more bits in the first epochs"
        )

    def _change_widths(self, epoch: int) -> None:
        """Gives quantizers the widths of an epoch, and fits all scales if a width changes."""
        if not self.settings.widths:
            return
        if not set_least_bits(self.prepared, self.settings.least_bits(epoch)):
            return
        refit(
            self.prepared, self.data.first(self.settings.calibration_samples, self.processes.device)
        )
        self.processes.broadcast(self.prepared)
        self.optimizer.state.clear()
        self.average.restart()
        self.floor = ScaleFloor(self.prepared)

    def _factor(self, step: int) -> float:
        return self.settings.learning_rate_factor(step, self.steps)

    def _document(self) -> CheckpointDocument:
        return CheckpointDocument(
            settings=self.settings,
            data=self.data.description,
            processes=self.processes.count,
            epochs=tuple(self.records),
            averaged_steps=self.average.steps,
            frozen=frozen_parameters(self.prepared),
            callbacks=tuple(callback.state() for callback in self.callbacks),
        )

    def save(self, checkpoint: Path | None) -> None:
        """Writes a checkpoint, if there is a folder for it."""
        self.prepared.standing.settle(self.prepared, rounded=False)
        if checkpoint is not None and self.processes.index == 0:
            average = self.average.tensors if self.settings.average_decay else {}
            save_checkpoint(checkpoint, self.prepared, self._document(), self.optimizer, average)
        self.processes.wait()

    def finish(self) -> None:
        """Makes the model ready for conversion: averaged weights, folded norms, fitted biases."""
        if self.settings.average_decay:
            self.average.copy_to_model()
        share = self.settings.frozen_batch_norm_share
        frozen = self.settings.is_last_share(self.settings.epochs - 1, share)
        if self.prepared.batch_norms and not frozen:
            self._measure_batch_norms()
        fold_batch_norms(self.prepared)
        fit_biases(self.prepared)
        for place, quantizer in self.prepared.used_quantizers().items():
            if not bool((quantizer.scale.isfinite() & (quantizer.scale > 0)).all()):
                raise QuantizerError(f"the {place} learned a scale that is not finite and above 0")

    def _measure_batch_norms(self) -> None:
        """Measures the statistics of batch norms with the weights at the end of training."""
        device, epoch = self.processes.device, self.settings.epochs
        with seeded(seed_of(self.settings.seed, epoch, self.processes.index), device):
            batches = self.data.batches(self.settings, self.processes, epoch)
            inputs = (inputs for inputs, _ in islice(batches, MEASURED_BATCHES))
            measure_batch_norms(self.prepared, inputs, self.processes.average)

    def report(self) -> TrainingReport:
        """Returns the report of the training."""
        return TrainingReport(
            recipe=str(self.prepared.recipe),
            data=self.data.description,
            device=str(self.processes.device),
            processes=self.processes.count,
            parameters=sum(parameter.numel() for parameter in self.prepared.parameters()),
            settings=self.settings,
            epochs=tuple(self.records),
        )


def check_quantizers(prepared: PreparedModel) -> None:
    """Tests on examples that every kind of quantizer in a model keeps the contract.

    Quantizers of the same class and configuration are tested once.

    Raises:
        QuantizerError: a quantizer is not calibrated or breaks a law, which the message names.
    """
    seen: set[str] = set()
    for place, quantizer in prepared.used_quantizers().items():
        if not quantizer.is_fitted:
            raise QuantizerError(
                f"the quantizer of the {place} was never calibrated; call "
                "calibrate(prepared, data) first"
            )
        kind = f"{type(quantizer)} {quantizer.extra_repr()}"
        if kind in seen:
            continue
        seen.add(kind)
        try:
            check_quantizer(quantizer)
        except QuantizerError as error:
            raise QuantizerError(f"quantizer of the {place}: {error}") from error

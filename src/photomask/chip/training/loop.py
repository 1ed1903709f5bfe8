"""Trains a prepared model, or any other trainee, on data by a schedule."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.calibration import input_forms
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning import Pruner, ScheduledPruning
from photomask.chip.standing import Effect
from photomask.chip.training.averaging import WeightAverage
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
    TrainingData,
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
from photomask.chip.training.objective import compile_objective
from photomask.chip.training.optimization import make_optimizer
from photomask.chip.training.processes import (
    Processes,
    find_processes,
    is_first_process,
    seeded,
)
from photomask.chip.training.quantized import QuantizedTrainee
from photomask.chip.training.report import EpochRecord, TrainingReport
from photomask.chip.training.settings import Schedule, TrainingSettings
from photomask.chip.training.teacher import float_model
from photomask.chip.training.trainee import Trainee
from photomask.documents import refuse_foreign
from photomask.errors import PhotomaskError, TrainingError, UsageError
from photomask.report import Progress, without_progress
from photomask.stages import stage

_LOG = logging.getLogger(__name__)


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
    pruner: Pruner | None = None,
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
        pruner: prunes weights during the training, by the schedule `settings.pruning`. Without one,
            weights that are pruned already stay pruned.
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
        PruningError: the pruner breaks its contract, a pattern does not fit a layer, or a quantizer
            has no code for 0.
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
        found = as_training_data(data, forms, reads, augment)
        taught = None
        if settings.distillation > 0:
            taught = float_model(prepared, teacher, processes.device)
        mixture = mixed_loss(
            loss or cross_entropy(settings.label_smoothing),
            settings.distillation,
            settings.temperature,
        )
        pruning = None
        if pruner is not None:
            steps = settings.epochs * found.steps_per_epoch(settings.batch_size)
            pruning = ScheduledPruning(prepared, pruner, settings.pruning, steps)
        trainee = QuantizedTrainee(prepared, settings, taught, mixture, pruning)
        try:
            run = Run(trainee, found, settings, callbacks, processes, compiled)
            run.complete(checkpoint, resume, observe, progress)
        finally:
            prepared.to(before).eval()
    return run.report()


class Run:
    """One training: the model, and the state that changes with it.

    Args:
        trainee: the model, with everything that depends on its kind.
        data: the data.
        settings: the schedule.
        callbacks: objects that are called at the ends of epochs and steps.
        processes: the processes that train together.
        compiled: True runs the objective through `torch.compile`.
    """

    def __init__(
        self,
        trainee: Trainee,
        data: TrainingData,
        settings: Schedule,
        callbacks: Sequence[Callback],
        processes: Processes,
        compiled: bool,
    ):
        self.trainee = trainee
        self.module = trainee.module
        self.data = data
        self.settings = settings
        self.callbacks = callbacks
        self.processes = processes
        self.records: list[EpochRecord] = []
        self.steps = data.steps_per_epoch(settings.batch_size)
        self.module.to(processes.device)
        processes.broadcast(self.module)
        self.objective = trainee.objective(processes.device)
        if compiled:
            self.objective = compile_objective(self.objective, processes.device)
        self.optimizer = make_optimizer(trainee.parameter_groups(), settings)
        self.average = WeightAverage(self.module, settings.average_decay)
        self.health = Health(self.module, trainee.last_in_order, processes.device)

    def complete(
        self,
        checkpoint: Path | None,
        resume: bool,
        observe: Callable[[EpochRecord], None] | None,
        progress: Progress,
    ) -> None:
        """Runs the epochs that remain, and makes the model ready for use.

        Args:
            checkpoint: the folder of the checkpoint, or None.
            resume: True continues from the checkpoint.
            observe: is called in the first process with the record of each epoch.
            progress: shows the steps of an epoch.
        """
        self.start(checkpoint, resume)
        for epoch in range(len(self.records), self.settings.epochs):
            self.epoch(epoch, progress)
            self.save(checkpoint)
            if observe is not None and self.processes.index == 0:
                observe(self.records[-1])
        self.finish()

    def start(self, checkpoint: Path | None, resume: bool) -> None:
        """Loads the checkpoint of a resumed training, or checks that a new one can start."""
        if not resume:
            if checkpoint is not None and is_weights(checkpoint):
                raise UsageError(
                    f"{checkpoint} holds a training already; resume it, or choose another folder"
                )
            if checkpoint is not None:
                refuse_foreign(checkpoint, OUTPUT, files_of_earlier)
            self.trainee.check()
            return
        if checkpoint is None or not is_weights(checkpoint):
            raise UsageError(f"there is no checkpoint to resume from at {checkpoint}")
        found = load_checkpoint(
            checkpoint, self.trainee, self._document(), self.optimizer, self.average.tensors
        )
        self.records = list(found.epochs)
        self.average.steps = found.averaged_steps
        self.trainee.resume()
        for callback, state in zip(self.callbacks, found.callbacks, strict=True):
            callback.restore(state)

    def epoch(self, epoch: int, progress: Progress) -> None:
        """Trains one epoch, after making the changes that the schedule plans for it."""
        started = time.perf_counter()
        device = self.processes.device
        with seeded(seed_of(self.settings.seed, epoch, self.processes.index), device):
            if self.trainee.start_epoch(epoch, self.data, self.processes):
                self.optimizer.state.clear()
                self.average.restart()
            for callback in self.callbacks:
                callback.on_epoch_start(self.module, epoch)
            self.module.train()
            good = {name: value.clone() for name, value in self.module.state_dict().items()}
            rate = self.settings.learning_rate * self._factor(epoch * self.steps)
            try:
                loss = self._steps(epoch, progress)
                self.trainee.end_epoch()
            except PhotomaskError:
                self.module.load_state_dict(good)
                raise
        self.records.append(
            EpochRecord(
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                least_bits=self.trainee.least_bits,
                seconds=time.perf_counter() - started,
            )
        )
        _LOG.info("%s", self.records[-1])
        for callback in self.callbacks:
            callback.on_epoch_end(self.module, epoch, loss)

    def _steps(self, epoch: int, progress: Progress) -> float:
        """Runs the steps of an epoch, and returns their mean loss."""
        total = torch.zeros((), device=self.processes.device)
        numbers: Sequence[int] = range(epoch * self.steps, (epoch + 1) * self.steps)
        label = f"epoch {epoch + 1} of {self.settings.epochs}"
        batches = self.data.batches(self.settings, self.processes, epoch)
        for step, (inputs, labels) in zip(progress(numbers, label), batches, strict=False):
            total += self._step(step, inputs, labels)
        self._demand_health(None)
        self.processes.average([total, *self.trainee.statistics()])
        return float(total) / self.steps

    def _step(self, step: int, inputs: list[Tensor], labels: Tensor | None) -> Tensor:
        """Runs one step, and returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self._factor(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.trainee.check_batch(inputs, labels)
        loss = self.objective(inputs, labels)
        loss.backward()
        self.processes.average([p.grad for p in self.module.parameters() if p.grad is not None])
        self.health.record(step, loss)
        if self.health.is_due:
            self._demand_health(inputs)
        self.trainee.before_step(step)
        self.optimizer.step()
        self.trainee.end_step()
        if self.settings.average_decay:
            self.average.update()
        for callback in self.callbacks:
            callback.on_step_end(self.module, step)
        return loss.detach()

    def _demand_health(self, inputs: list[Tensor] | None) -> None:
        """Raises an error where the loss or a gradient of a step was not finite."""
        problem = self.health.problem()
        if problem is None:
            return
        if inputs is not None and "loss" in problem and self.processes.device.type == "cpu":
            problem += f"; {self.trainee.first_bad_place(inputs)}"
        raise TrainingError(
            f"training diverged: {problem}. The model is as it was when the epoch began, and so is "
            f"the checkpoint; {self.trainee.remedy}"
        )

    def _factor(self, step: int) -> float:
        return self.settings.learning_rate_factor(step, self.steps)

    def _document(self) -> CheckpointDocument:
        return CheckpointDocument(
            settings=self.settings,
            data=self.data.description,
            processes=self.processes.count,
            epochs=tuple(self.records),
            averaged_steps=self.average.steps,
            frozen=frozen_parameters(self.module),
            callbacks=tuple(callback.state() for callback in self.callbacks),
            pruner=self.trainee.pruner,
        )

    def save(self, checkpoint: Path | None) -> None:
        """Writes a checkpoint, if there is a folder for it."""
        self.trainee.settle()
        if checkpoint is not None and self.processes.index == 0:
            average = self.average.tensors if self.settings.average_decay else {}
            save_checkpoint(checkpoint, self.trainee, self._document(), self.optimizer, average)
        self.processes.wait()

    def finish(self) -> None:
        """Makes the model ready for use, with the averaged weights if there is an average."""
        if self.settings.average_decay:
            self.average.copy_to_model()
        self.trainee.finish(self.data, self.processes)

    def report(self) -> TrainingReport:
        """Returns the report of the training."""
        return TrainingReport(
            recipe=self.trainee.description,
            data=self.data.description,
            device=str(self.processes.device),
            processes=self.processes.count,
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            settings=self.settings,
            epochs=tuple(self.records),
        )

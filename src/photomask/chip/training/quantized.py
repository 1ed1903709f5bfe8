"""Adapts the training loop to prepared models: widths, frozen scales, and batch norms."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from photomask.chip.calibration import fit_biases
from photomask.chip.graph.module_keys import node_name
from photomask.chip.graph.operations import Input
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning import ScheduledPruning, clear_pruned
from photomask.chip.quantizers import check_quantizer
from photomask.chip.training.batch_norm import (
    fold_batch_norms,
    freeze_batch_norms,
    measure_batch_norms,
)
from photomask.chip.training.checkpoint import put_model, read_model, write_model
from photomask.chip.training.data import TrainingData, seed_of
from photomask.chip.training.documents import ModelDocument
from photomask.chip.training.objective import Objective, make_objective
from photomask.chip.training.optimization import (
    ScaleFloor,
    parameter_groups,
    quantizer_parameters,
)
from photomask.chip.training.processes import Processes, seeded
from photomask.chip.training.projection import project_weights
from photomask.chip.training.settings import TrainingSettings
from photomask.chip.training.trainee import Trainee
from photomask.chip.training.widths import least_bits, refit, set_least_bits
from photomask.chip.weight_masks import demand_zeros
from photomask.documents import SealedDocument
from photomask.errors import DataError, QuantizerError

MEASURED_BATCHES = 200
"""The number of batches that measure the statistics of batch norms at the end."""


class QuantizedTrainee(Trainee):
    """A prepared model, whose quantizers learn with the weights.

    Args:
        prepared: the calibrated model.
        settings: the schedule, with the widths of the quantizers.
        teacher: the model whose outputs are distilled, or None.
        loss: a function of the model's outputs, the labels, and the teacher's outputs or None.
        pruning: the pruning of the training, or None.
    """

    remedy = "try a lower learning rate, or more bits in the first epochs"

    def __init__(
        self,
        prepared: PreparedModel,
        settings: TrainingSettings,
        teacher: Callable[..., tuple[Tensor, ...]] | None,
        loss: Callable[..., Tensor],
        pruning: ScheduledPruning | None = None,
    ):
        self.module = self.prepared = prepared
        self.settings = settings
        self.description = str(prepared.recipe)
        self._teacher = teacher
        self._loss = loss
        self._pruning = pruning
        self.pruner = "" if pruning is None else repr(pruning.pruner)
        self._floor: ScaleFloor | None = None

    @property
    def least_bits(self) -> int | None:
        """The width of the narrowest quantizer."""
        return least_bits(self.prepared)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns weights, biases and quantizers, each with its learning rate and decay."""
        return parameter_groups(
            self.prepared,
            learning_rate=self.settings.learning_rate,
            quantizer_learning_rate=self.settings.quantizer_learning_rate,
            weight_decay=self.settings.weight_decay,
        )

    def objective(self, device: torch.device) -> Objective:
        """Returns the function that computes the loss of a batch."""
        return make_objective(
            self.prepared,
            self._teacher,
            self._loss,
            device=device,
            bfloat16=self.settings.bfloat16,
        )

    def check(self) -> None:
        """Tests that the quantizers are fitted and keep their contract, and begins to prune."""
        check_quantizers(self.prepared)
        if self._pruning is not None:
            self._pruning.start(self.settings.seed)
        project_weights(self.prepared)
        demand_zeros(self.prepared)

    def resume(self) -> None:
        """Takes the scales of the checkpoint as those that learned scales are measured by."""
        self._floor = None

    def start_epoch(self, epoch: int, data: TrainingData, processes: Processes) -> bool:
        """Changes widths, and freezes scales and batch norms where the schedule says so."""
        changed = self._change_widths(epoch, data, processes)
        if self.settings.is_last_share(epoch, self.settings.frozen_scale_share):
            for parameter in quantizer_parameters(self.prepared):
                parameter.requires_grad_(False)
        share = self.settings.frozen_batch_norm_share
        freeze_batch_norms(self.prepared, self.settings.is_last_share(epoch, share))
        self._floor = self._floor or ScaleFloor(self.prepared)
        return changed

    def _change_widths(self, epoch: int, data: TrainingData, processes: Processes) -> bool:
        """Gives quantizers the widths of an epoch, and fits all scales if a width changes."""
        if not self.settings.widths:
            return False
        if not set_least_bits(self.prepared, self.settings.least_bits(epoch)):
            return False
        refit(self.prepared, data.first(self.settings.calibration_samples, processes.device))
        project_weights(self.prepared)
        processes.broadcast(self.prepared)
        self._floor = None
        return True

    def check_batch(self, inputs: Sequence[Tensor], labels: Tensor | None) -> None:
        """Refuses data without labels where the loss reads them."""
        if labels is None and self.settings.distillation < 1:
            raise DataError("the data has no labels; give labels, or set distillation to 1")

    def before_step(self, step: int) -> None:
        """Prunes where the schedule says so, and gives pruned weights the pruner's gradients."""
        if self._pruning is not None:
            self._pruning.before_step(step)

    def end_step(self) -> None:
        """Keeps learned scales positive, and pruned weights at 0."""
        if self._pruning is not None:
            self._pruning.after_step()
        if self._floor is not None:
            self._floor.apply()

    def statistics(self) -> list[Tensor]:
        """Returns the running statistics of the batch norms that are kept."""
        return list(self.prepared.batch_norms.buffers())

    def settle(self) -> None:
        """Records that the scales and the weights fit each other."""
        self.prepared.standing.settle(self.prepared, rounded=False)

    def finish(self, data: TrainingData, processes: Processes) -> None:
        """Makes the model ready for conversion: zeros, folded norms, and fitted biases."""
        clear_pruned(self.prepared)
        share = self.settings.frozen_batch_norm_share
        frozen = self.settings.is_last_share(self.settings.epochs - 1, share)
        if self.prepared.batch_norms and not frozen:
            self._measure_batch_norms(data, processes)
        fold_batch_norms(self.prepared)
        fit_biases(self.prepared)
        for place, quantizer in self.prepared.used_quantizers().items():
            if not bool((quantizer.scale.isfinite() & (quantizer.scale > 0)).all()):
                raise QuantizerError(f"the {place} learned a scale that is not finite and above 0")

    def _measure_batch_norms(self, data: TrainingData, processes: Processes) -> None:
        """Measures the statistics of batch norms with the weights at the end of training."""
        epoch = self.settings.epochs
        with seeded(seed_of(self.settings.seed, epoch, processes.index), processes.device):
            batches = data.batches(self.settings, processes, epoch)
            inputs = (inputs for inputs, _ in islice(batches, MEASURED_BATCHES))
            measure_batch_norms(self.prepared, inputs, processes.average)

    def last_in_order(self, parameters: list[str]) -> str:
        """Returns the parameter that the forward pass uses last, whose gradient comes first."""
        readable = [node_name(name.removeprefix("weights.")) for name in parameters]
        nodes = self.prepared.graph.nodes
        ordered = [name for node in nodes for name in node.constants.values()]
        return max(readable, key=lambda name: ordered.index(name) if name in ordered else -1)

    @torch.no_grad()
    def first_bad_place(self, inputs: Sequence[Tensor]) -> str:
        """Computes a batch again, and returns a sentence that names the first edge with NaN.

        Infinity counts as well. Where all edges are finite, the sentence says so.
        """
        everything = copy.copy(self.prepared)
        graph = self.prepared.graph
        names = tuple(node.name for node in graph.nodes)
        everything.graph = replace(graph, outputs=names)
        for node, value in zip(graph.nodes, everything(*inputs), strict=True):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                what = "input" if isinstance(node.operation, Input) else "output of"
                source = f" ({node.source})" if node.source else ""
                return f"the first edge that is not finite is the {what} {node.name!r}{source}"
        return "all edges are finite; check the loss, its labels and its teacher"

    def write(self, folder: Path) -> SealedDocument:
        """Writes the pair of files of the model, and returns the document."""
        return write_model(self.prepared, folder)

    def read(self, folder: Path) -> tuple[SealedDocument, dict[str, Tensor]]:
        """Returns the checked content of the pair of files of the model."""
        return read_model(self.prepared, folder)

    def put(self, document: SealedDocument, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Puts the content of the files into the model."""
        put_model(self.prepared, cast(ModelDocument, document), dict(tensors), folder)


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

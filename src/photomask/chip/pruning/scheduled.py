"""Prunes a model while it is trained, by a schedule."""

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor

from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning.base import Moment, PrunableWeight, Pruner
from photomask.chip.pruning.contract import check_masks, check_pruner
from photomask.chip.pruning.layers import ChosenLayers, choose_layers
from photomask.chip.pruning.measuring import prunable, without_norm
from photomask.chip.pruning.one_shot import clear_pruned, put_masks
from photomask.documents import Document
from photomask.errors import PruningError, UsageError


class PruningSchedule(Document):
    """When a training prunes, and how fast the sparsity grows.

    At progress `t`, from 0 at `begin` to 1 at `end`, the sparsity is that of the cubic ramp

        s(t) = final - (final - initial) * (1 - t)**3

    Attributes:
        begin: the share of the training's steps before the first update of the masks, 0 to 1.
        end: the share of the steps after which the masks stay as they are.
        interval: the number of steps between two updates.
        initial_sparsity: the sparsity at `begin`; the pruner holds the final one.

    Source: Zhu and Gupta 2017, equation 1, arXiv:1710.01878.
    """

    begin: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=0.6, ge=0, le=1)
    interval: int = Field(default=100, ge=1)
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_order(self) -> "PruningSchedule":
        if self.begin >= self.end:
            raise ValueError(
                f"pruning begins after {self.begin:g} of the steps and ends after {self.end:g}; it "
                "must end later than it begins"
            )
        return self

    def moment(self, step: int, steps: int, sparsity: float) -> Moment | None:
        """Returns the moment of a step at which the masks are updated, or None.

        The last update is at the first step of the interval's grid that is not before `end`.

        Args:
            step: the step, counted from 0.
            steps: the number of steps of the training.
            sparsity: the final sparsity.
        """
        first, last = round(self.begin * steps), max(round(self.end * steps) - 1, 0)
        final = min(first + -(-(last - first) // self.interval) * self.interval, steps - 1)
        if step < first or step > final or ((step - first) % self.interval and step != final):
            return None
        progress = 1.0 if final == first else (step - first) / (final - first)
        initial = min(self.initial_sparsity, sparsity)
        return Moment(progress, sparsity - (sparsity - initial) * (1 - progress) ** 3)


class ScheduledPruning:
    """The pruning of one training.

    Args:
        prepared: the model that is trained, on its device.
        pruner: decides which weights are pruned.
        schedule: decides when.
        steps: the number of steps of the training.

    Raises:
        PruningError: the pruner breaks its contract, a layer cannot be pruned, or a quantizer has
            no code for 0.
        RecipeError: a pattern of the pruner's layers matches nothing.
        UsageError: the pruner measures inputs.
    """

    def __init__(
        self, prepared: PreparedModel, pruner: Pruner, schedule: PruningSchedule, steps: int
    ):
        check_pruner(pruner)
        if pruner.needs_inputs:
            raise UsageError(
                f"{type(pruner).__name__} measures inputs, which a training does not keep; call "
                "prune(prepared, pruner, data) and train afterwards"
            )
        self.prepared = prepared
        self.pruner = pruner
        self.schedule = schedule
        self.steps = steps
        self.chosen: ChosenLayers = choose_layers(prepared, pruner)
        self._check_reached()
        self._demand_codes_of_zero()

    def _check_reached(self) -> None:
        """Refuses a schedule that never updates the masks."""
        moments = (self._moment(step) for step in range(self.steps))
        if not self.pruner.follows_weights and all(moment is None for moment in moments):
            raise PruningError(
                f"the schedule {self.schedule!r} never prunes in {self.steps} steps; let it begin "
                "earlier"
            )

    @torch.no_grad()
    def _demand_codes_of_zero(self) -> None:
        """Refuses quantizers that have no code for 0, before any weight is pruned."""
        for node in self.layers:
            layer = self.prepared.layer(node)
            if bool((layer.quantizer(torch.zeros_like(layer.measured_weight)) != 0).any()):
                raise PruningError(
                    f"the weight of {node.name!r} cannot be pruned, because its quantizer "
                    f"{type(layer.quantizer).__name__} has no code for 0; use one that has, such "
                    "as Quantizer or LSQ"
                )

    def _moment(self, step: int) -> Moment | None:
        return self.schedule.moment(step, self.steps, self.pruner.sparsity)

    @property
    def layers(self) -> tuple[Node, ...]:
        """The layers that are pruned."""
        return self.chosen.layers

    def start(self, seed: int) -> None:
        """Gives the layers their first masks.

        Args:
            seed: the seed of random masks.
        """
        generator = torch.Generator().manual_seed(seed)
        self._put(self.pruner.first_masks(self._weights(), generator))

    def before_step(self, step: int) -> None:
        """Updates the masks where the schedule says so, and gives the optimizer its gradients.

        Args:
            step: the step of the optimizer that follows, counted from 0.
        """
        moment = None if self.pruner.follows_weights else self._moment(step)
        if moment is not None:
            weights = self._weights()
            masks = check_masks(self.pruner, weights, self.pruner.update(weights, moment))
            self._put(masks)
            clear_pruned(self.prepared)
        for node in self.layers:
            parameter, weight = self.prepared.parameter_of(node), prunable(self.prepared, node)
            if weight.gradient is not None:
                parameter.grad = self.pruner.gradient(weight)

    def after_step(self) -> None:
        """Keeps pruned weights at 0, or lets the mask follow the weights."""
        if self.pruner.follows_weights:
            masks = self.pruner.masks(self._weights(), self.pruner.sparsity)
            for node, mask in zip(self.layers, masks, strict=True):
                self.prepared.set_mask(node, mask)
        if not self.pruner.keeps_hidden:
            clear_pruned(self.prepared)

    def _put(self, masks: Sequence[Tensor]) -> None:
        put_masks(self.prepared, self.layers, masks)

    def _weights(self) -> list[PrunableWeight]:
        """Returns the weights and gradients as they are now, without norms folded into them."""
        return [
            without_norm(self.prepared, node, prunable(self.prepared, node)) for node in self.layers
        ]

"""Freezes layers in stages as PROFIT does, starting with the most unstable ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from photomask.chip.graph.module_keys import module_key
from photomask.chip.graph.operations import Input
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.training.batch_norm import LiveBatchNorm
from photomask.chip.training.callbacks import Callback
from photomask.errors import TrainingError, UsageError

_SMALLEST_VARIANCE = 1e-6
"""The least variance of a channel, relative to the largest of its layer.

It keeps the divergence of a dead channel finite.
"""


class ProgressiveFreezing(Callback):
    """Freezes the weights of a model in stages, the most unstable layers first.

    A small change of a float weight can change its code, and with it the statistics of the layer's
    output, to which all later layers are adapted. The instability of a layer is the mean, over
    channels and measurements, of

        KL(N(m, s**2) || N(m', s'**2)).

    The two normal distributions approximate the layer's output, for the same inputs, with the
    quantized weights before and after a step of the optimizer. Training has `stages` parts of equal
    length. At the start of each part except the first, a share `1 / stages` of all layers is
    frozen: the weight, its quantizer, and the gain and the statistics of a batch norm that is kept
    beside the layer. Biases still learn.

    It differs from the source in that the statistics are those of one given batch, so they cost
    nothing between measurements. The source uses the training batches.

    Args:
        probe: the inputs of the measurement, one tensor for each input; some tens of samples are
            enough.
        epochs: the number of epochs of the whole training.
        stages: the number of parts of the training; it is 3 in the paper.
        interval: the number of optimizer steps from one measurement to the next.

    Attributes:
        frozen: the names of the frozen layers, the most unstable first.

    Raises:
        UsageError: there are fewer epochs than stages, fewer than two stages, or an interval below
            1.

    Source: Park and Yoo 2020, sections 3 and 4.1, arXiv:2008.04693.
    """

    def __init__(
        self,
        probe: Tensor | Sequence[Tensor],
        epochs: int,
        *,
        stages: int = 3,
        interval: int = 10,
    ):
        if stages < 2 or epochs < stages or interval < 1:
            raise UsageError(
                "freezing needs two stages or more, an epoch for each stage, and an interval of "
                f"one step or more; found {stages} stages, {epochs} epochs and interval {interval}"
            )
        self.probe = (probe,) if isinstance(probe, Tensor) else tuple(probe)
        self.epochs = epochs
        self.stages = stages
        self.interval = interval
        self.frozen: list[str] = []
        self._sums: dict[str, float] = {}
        self._count = 0
        self._before: dict[str, Tensor] = {}

    @property
    def instability(self) -> dict[str, float]:
        """The mean divergence of each layer since the last freezing; empty without measurements."""
        return {name: total / self._count for name, total in self._sums.items()}

    def on_epoch_start(self, prepared: PreparedModel, epoch: int) -> None:
        """Freezes the share of layers that belongs to the stage of this epoch.

        Raises:
            TrainingError: the stage ended without a measurement.
        """
        layers = [node.name for node in prepared.graph.nodes if "weight" in node.constants]
        wanted = len(layers) * (epoch * self.stages // self.epochs) // self.stages
        if wanted > len(self.frozen):
            if not self._count:
                raise TrainingError(
                    f"a stage of freezing ended before epoch {epoch} without a measurement: an "
                    f"interval of {self.interval} steps is too long; choose a shorter one"
                )
            moving = [name for name in layers if name not in self.frozen]
            moving.sort(key=self.instability.__getitem__, reverse=True)
            self.frozen += moving[: wanted - len(self.frozen)]
            self._sums = {}
            self._count = 0
            self._before = {}
        for name in self.frozen:
            freeze_weight(prepared, name)

    @torch.no_grad()
    def on_step_end(self, prepared: PreparedModel, step: int) -> None:
        """Measures the effect of a step on the layers, once per interval."""
        training = prepared.training
        prepared.eval()
        if self._before:
            self._measure(prepared)
            self._before = {}
        if (step + 1) % self.interval == 0:
            for node in prepared.graph.nodes:
                if "weight" in node.constants and node.name not in self.frozen:
                    weight = prepared.quantized_constants_of(node)["weight"]
                    self._before[node.name] = weight.clone()
        prepared.train(training)

    def _measure(self, prepared: PreparedModel) -> None:
        """Runs the probe, and adds the divergence of each layer whose old weight was stored."""
        device = next(iter(prepared.weights.values())).device
        inputs = [x.to(device) for x in self.probe]
        values = dict(zip(prepared.graph.inputs, inputs, strict=True))
        for node in prepared.graph.nodes:
            if not isinstance(node.operation, Input):
                operands = [values[name] for name in node.inputs]
                if node.name in self._before:
                    now = prepared.quantized_constants_of(node)
                    old = {**now, "weight": self._before[node.name]}
                    axis = node.operation.channels_in(len(node.shape))
                    pair = (node.operation.compute(operands, part) for part in (old, now))
                    before, after = (x.movedim(axis, 0).flatten(1).double() for x in pair)
                    found = self._sums.get(node.name, 0.0) + float(divergence(before, after))
                    self._sums[node.name] = found
                values[node.name] = prepared.compute(node, operands)
            values[node.name] = prepared.settle(node, values[node.name])
        self._count += 1

    def state(self) -> dict[str, Any]:
        """Returns the frozen layers and the measurements."""
        return {"frozen": list(self.frozen), "sums": dict(self._sums), "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the state that `state` returned."""
        self.frozen = list(state["frozen"])
        self._sums, self._count = dict(state["sums"]), int(state["count"])
        self._before = {}


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Returns the mean `KL(N(m, v) || N(m', v'))` of rows `[channels, values]`.

        KL = (log(v' / v) + (v + (m - m')**2) / v' - 1) / 2

    Here `m`, `v` and `m'`, `v'` are the mean and the variance of a row before and after.
    """
    means = [x.mean(dim=1) for x in (before, after)]
    variances = [x.var(dim=1, correction=0) for x in (before, after)]
    largest = torch.maximum(variances[0].max(), variances[1].max())
    smallest = largest * _SMALLEST_VARIANCE + torch.finfo(before.dtype).tiny
    old, new = (variance.clamp(min=smallest) for variance in variances)
    return ((new / old).log() + (old + (means[0] - means[1]).square()) / new - 1).mean() / 2


def freeze_weight(prepared: PreparedModel, name: str) -> None:
    """Freezes a layer's weight, its quantizer and its kept batch norm, so that codes stay."""
    node = prepared.graph.by_name[name]
    tensor = prepared.graph.tensor_of(node.constants["weight"])
    prepared.weights[module_key(tensor)].requires_grad_(False)
    prepared.weight_quantizer(name).requires_grad_(False)
    for key, norm in prepared.batch_norms.items():
        if key == module_key(name) and isinstance(norm, LiveBatchNorm):
            norm.frozen = True
            norm.gain.requires_grad_(False)

"""Keeps batch norms beside their layers while a model is trained, and folds them afterwards.

`prepare` folds a batch norm into the layer before it, so a program has no batch norms. With few
bits the outputs of a layer change with every step, and training works better if each batch is
normalized. Here a layer keeps its weight `W` without the norm. With the factor
`f = gain / sqrt(variance + epsilon)` of the running statistics, which follow those of the batches:

    training     y = batch_norm(conv(x, quantize(W)), statistics of the batch)
    evaluation   y = conv(x, f * quantize(W)) + (shift - f * mean)

A scale per channel is that of `W` until the final folding multiplies it by `|f|`. The codes then
depend on the weight only, and neither on a learned gain nor on a drifting variance. Weights and
scales also learn at matching rates: the gradient of a folded scale would be `f` times too small,
and its steps `f**2` times. One scale for all channels, or a power of two, cannot absorb `f`. Such a
quantizer gets the folded weight, `quantize(f * W) / f`.

Jacob et al. 2018 (section 3.2, arXiv:1712.05877) compute the statistics of a batch by a second
convolution, in float, and Krishnamoorthi 2018 (section 3.2.2, arXiv:1806.08342) uses them for a
correction. Here they are the statistics of the quantized convolution itself. That saves the second
convolution, and the statistics include the shift that rounding causes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import FloatGraph, Node, capture
from photomask.chip.graph.module_keys import module_key
from photomask.chip.graph.operations import Accumulates, ChannelAffine
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect, changes
from photomask.errors import DataError, UsageError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
SMALLEST_FACTOR = 1e-6
"""Factors closer to 0 are replaced by this one, so that a dead channel can recover."""
AGREEMENT = 1e-4
"""The tolerance between a folded weight and the prepared one, relative to the largest element."""


class LiveBatchNorm(nn.Module):
    """A batch norm that is kept beside the layer before it.

    Args:
        norm: a batch norm module with running statistics.
        bias: the bias of the layer, [channels], which is subtracted from the mean.

    Attributes:
        gain: the parameter for the gain, [channels].
        shift: the parameter for the shift, [channels].
        mean: the running mean of the layer's output without its bias, [channels].
        variance: the running variance of the layer's output, [channels].
        frozen: True to normalize by the running statistics in training mode as well.
        scales_move: True if the scales of the weight are those of the weight without the norm.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, norm: nn.Module, bias: Tensor):
        super().__init__()
        state = {name: value.detach().cpu().float() for name, value in norm.state_dict().items()}
        channels = len(bias)
        self.gain = nn.Parameter(state.get("weight", torch.ones(channels)).clone())
        self.shift = nn.Parameter(state.get("bias", torch.zeros(channels)).clone())
        self.register_buffer("mean", state["running_mean"] - bias)
        self.register_buffer("variance", state["running_var"].clone())
        self.epsilon = float(norm.eps)  # pyright: ignore[reportArgumentType]
        momentum = norm.momentum
        self.momentum = float(momentum) if isinstance(momentum, (int, float)) else 0.1
        self.frozen = False
        self.scales_move = False

    @property
    def is_live(self) -> bool:
        """True if outputs are normalized by the statistics of the batch."""
        return self.training and not self.frozen

    def factor(self) -> Tensor:
        """Returns the factor of each channel's weights, [channels]."""
        gain = self.gain.detach() if self.is_live else self.gain
        factor = gain * torch.rsqrt(self.variance + self.epsilon)
        return torch.where(factor.abs() < SMALLEST_FACTOR, SMALLEST_FACTOR, factor)

    def fold(self, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the constants of a layer that equals layer and norm in evaluation mode."""
        factor, weight = self.factor(), constants["weight"]
        return {
            **constants,
            "weight": weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)),
            "bias": self.shift - factor * self.mean,
        }

    def forward(self, node: Node, inputs: Sequence[Tensor], constants: dict[str, Tensor]) -> Tensor:
        """Returns the normalized output of a layer in training mode.

        Args:
            node: the layer.
            inputs: the inputs of the layer.
            constants: the folded constants of the layer, with a quantized weight.

        Raises:
            DataError: the batch has one value per channel, and so no variance.
        """
        weight = constants["weight"]
        factor = self.factor().reshape(-1, *(1,) * (weight.ndim - 1))
        plain = {"weight": weight / factor, "bias": torch.zeros_like(constants["bias"])}
        made = node.operation.compute(inputs, plain)
        if made.numel() == made.shape[1]:
            raise DataError(
                f"the batch norm behind {node.name!r} ({node.source}) gets one value per channel, "
                "which has no variance, in a batch of one sample; use batches of two samples or "
                "more (drop_last=True leaves out a smaller last one), or call "
                "freeze_batch_norms(prepared)"
            )
        normed = F.batch_norm(
            made,
            self.mean,
            self.variance,
            self.gain,
            self.shift,
            training=True,
            momentum=self.momentum,
            eps=self.epsilon,
        )
        return normed if node.clamp is None else node.clamp.compute([normed], {})


@changes(Effect.KEEPS)
@float32_by_default()
def keep_batch_norms(prepared: PreparedModel, model: nn.Module, example: Data) -> tuple[str, ...]:
    """Separates batch norms from the layers that `prepare` folded them into, for training.

    The outputs of the prepared model in evaluation mode stay the same. A norm stays folded where it
    does not directly follow a convolution or a linear layer, where the layer was changed since, or
    where the model uses the layer's weight at several places.

    Args:
        prepared: the prepared model, calibrated or not, which is changed in place.
        model: the model that was given to `prepare`.
        example: the example that was given to `prepare`.

    Returns:
        The names of the layers whose norms are kept.

    Raises:
        UsageError: no batch norm can be separated.
    """
    raw = capture(model, example)
    modules = dict(model.named_modules())
    nodes, own = raw.by_name, prepared.graph.by_name
    kept: list[str] = []
    for node in raw.nodes:
        norm = modules.get(node.name)
        if not isinstance(node.operation, ChannelAffine) or not isinstance(norm, BATCH_NORMS):
            continue
        layer = nodes[node.inputs[0]]
        if (
            layer.name in own
            and _is_alone(prepared, own[layer.name])
            and _stands_behind(raw, layer)
            and norm.running_mean is not None
        ):
            constants = raw.constants_of(layer)
            live = LiveBatchNorm(norm, constants["bias"]).eval()
            if _agrees(prepared, own[layer.name], live.fold(constants)):
                _keep(prepared, own[layer.name], live, constants["weight"])
                kept.append(layer.name)
    if not kept:
        raise UsageError(
            "no batch norm of the model directly follows a convolution or a linear layer that is "
            "still as it was prepared; train without keep_batch_norms"
        )
    return tuple(kept)


def _keep(prepared: PreparedModel, layer: Node, norm: LiveBatchNorm, weight: Tensor) -> None:
    """Gives a layer its weight without the norm, and keeps the norm beside it."""
    old = prepared.constants_of(layer)["bias"]
    prepared.set_constant(layer.name, "weight", weight.to(old.device))
    prepared.set_constant(layer.name, "bias", torch.zeros_like(old))
    prepared.keep_norm(layer.name, norm.to(old.device))
    quantizer = prepared.weight_quantizer(layer.name)
    norm.scales_move = quantizer.can_rescale
    if norm.scales_move and quantizer.is_fitted:
        quantizer.rescale(1 / norm.factor().abs().detach())


def _is_alone(prepared: PreparedModel, layer: Node) -> bool:
    """Tells whether no other node of the model uses the layer's weight or bias."""
    return not any(prepared.places_of(layer, role) for role in layer.constants)


def _stands_behind(graph: FloatGraph, layer: Node) -> bool:
    """Tells whether a layer has its channels at axis 1 and exactly one reader, the norm."""
    if layer.operation.accumulates is not Accumulates.WEIGHTED:
        return False
    at_axis_1 = layer.operation.channels_in(len(layer.shape)) == 1
    return at_axis_1 and len(graph.users()[layer.name]) == 1


def _agrees(prepared: PreparedModel, layer: Node, folded: Mapping[str, Tensor]) -> bool:
    """Tells whether the folded constants equal those of the prepared model."""
    constants = prepared.constants_of(layer)
    if not {"weight", "bias"} <= constants.keys():
        return False
    for role in ("weight", "bias"):
        expected, found = constants[role].detach().cpu(), folded[role].detach()
        if expected.shape != found.shape:
            return False
        largest = max(1e-3, float(expected.abs().max()))
        if float((expected - found).abs().max()) > AGREEMENT * largest:
            return False
    return True


def freeze_batch_norms(prepared: PreparedModel, frozen: bool = True) -> None:
    """Makes training normalize by the running statistics, or by those of each batch again.

    Args:
        prepared: the model whose kept batch norms are changed.
        frozen: True for the running statistics, False for those of each batch.
    """
    for norm in prepared.batch_norms.values():
        if isinstance(norm, LiveBatchNorm):
            norm.frozen = frozen


@changes(Effect.KEEPS)
@float32_by_default()
@torch.no_grad()
def measure_batch_norms(
    prepared: PreparedModel,
    batches: Iterable[Sequence[Tensor]],
    average: Callable[[list[Tensor]], None] | None = None,
) -> None:
    """Sets the statistics of batch norms to their means over some batches.

    Running statistics also average over earlier weights. With few bits, where a weight oscillates
    between two codes, they may fit no weights at all. The codes of the weights stay the same where
    `scales_move` is True.

    Args:
        prepared: the model, which is changed in place; frozen norms keep their statistics.
        batches: batches of inputs such as the model is trained on.
        average: a function that replaces tensors by their means over all training processes.

    Raises:
        UsageError: there are no batches.

    Source: batch norm re-estimation in Nagel et al. 2022, arXiv:2203.11086.
    """
    training = prepared.training
    prepared.train()
    norms = {
        name: norm
        for name, norm in prepared.batch_norms.items()
        if isinstance(norm, LiveBatchNorm) and norm.is_live
    }
    statistics = [tensor for norm in norms.values() for tensor in (norm.mean, norm.variance)]
    before = [tensor.clone() for tensor in statistics]
    momenta = {name: norm.momentum for name, norm in norms.items()}
    totals, count = [torch.zeros_like(tensor) for tensor in statistics], 0
    try:
        for norm in norms.values():
            norm.momentum = 1.0
        for inputs in batches:
            prepared(*inputs)
            # The old statistics are restored, so that every batch sees the same folded weights.
            for total, found, old in zip(totals, statistics, before, strict=True):
                total += found
                found.copy_(old)
            count += 1
    finally:
        for found, old in zip(statistics, before, strict=True):
            found.copy_(old)
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        prepared.train(training)
    if not count:
        raise UsageError("measuring batch norms needs at least one batch, but there was none")
    if average is not None:
        average(totals)
    for total, found in zip(totals, statistics, strict=True):
        found.copy_(total / count)


@changes(Effect.KEEPS)
@float32_by_default()
def fold_batch_norms(prepared: PreparedModel) -> None:
    """Folds the batch norms that `keep_batch_norms` kept into weights and biases.

    The outputs in evaluation mode stay the same, up to float rounding.

    Args:
        prepared: the model, which is changed in place and left in evaluation mode.
    """
    prepared.eval()
    with torch.no_grad():
        for node in prepared.graph.nodes:
            constants = prepared.constants_of(node)
            if module_key(node.name) in prepared.batch_norms:
                norm = cast(LiveBatchNorm, prepared.batch_norms[module_key(node.name)])
                layer = prepared.layer(node)
                if layer.norm_unit is not None:
                    layer.quantizer.rescale(layer.norm_unit.reshape(-1))
                prepared.drop_norm(node, norm.factor())
                for role in ("weight", "bias"):
                    prepared.set_constant(node.name, role, constants[role])

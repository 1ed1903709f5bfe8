"""Batch norms that stay alive while a model is trained.

`prepare` folds a batch norm into the layer before it, so a program has none. At few bits a layer's
outputs move with every step, and training goes better if they are normalised by the batch. So here
a layer has its weight `W` without the norm, and `f = gain / sqrt(variance + epsilon)` of the
running statistics, which follow those of the batch:

    training     y = batch_norm(conv(x, quantize(W)), statistics of the batch)
    evaluation   y = conv(x, f * quantize(W)) + (shift - f * mean)

A scale for each channel is that of `W`, until folding for good multiplies it by `|f|`. Codes then
depend on the weight alone, not on a gain that is learned or a variance that drifts, and weights
and scales learn at rates that fit each other: the gradient of a folded scale would be `f` times too
small, its steps `f**2` times. One scale for all channels, or a power of two, cannot take up `f`:
such a quantizer sees the folded weight, `quantize(f * W) / f`.

Jacob et al. 2018 (section 3.2, arXiv:1712.05877) take the batch's statistics from a second, float
convolution, and Krishnamoorthi 2018 (section 3.2.2, arXiv:1806.08342) corrects by them; here they
are those of the quantized convolution itself, which costs no second one, and whose shift by
rounding they take in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import FloatGraph, Node, capture
from photomask.chip.graph.module_keys import module_key
from photomask.chip.graph.operations import Accumulates, ChannelAffine
from photomask.chip.preparation import PreparedModel
from photomask.chip.standing import Effect, changes
from photomask.errors import DataError, UsageError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
SMALLEST_FACTOR = 1e-6
"""Factors closer to 0 count as this: a dead channel can come back to life."""
AGREEMENT = 1e-4
"""Of a folded weight and the prepared one, in shares of the largest."""


class LiveBatchNorm(nn.Module):
    """A batch norm behind a layer whose weight is quantized folded.

    Args:
        norm: with running statistics.
        bias: of the layer, [channels]; becomes part of the mean.

    Attributes:
        gain: parameter, [channels].
        shift: parameter, [channels].
        mean: running mean of the layer's output without its bias, [channels].
        variance: running variance, [channels].
        frozen: True to normalise by the running statistics in training as well.
        scales_move: True if the scales of the weight are those without the norm.
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
        """True where the batch's statistics count."""
        return self.training and not self.frozen

    def factor(self) -> Tensor:
        """Returns what a channel's weights are multiplied by, [channels]."""
        gain = self.gain.detach() if self.is_live else self.gain
        factor = gain * torch.rsqrt(self.variance + self.epsilon)
        return torch.where(factor.abs() < SMALLEST_FACTOR, SMALLEST_FACTOR, factor)

    def fold(self, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the constants of the layer that does what layer and norm do in evaluation."""
        factor, weight = self.factor(), constants["weight"]
        return {
            **constants,
            "weight": weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)),
            "bias": self.shift - factor * self.mean,
        }

    def forward(self, node: Node, inputs: Sequence[Tensor], constants: dict[str, Tensor]) -> Tensor:
        """Computes a node in training.

        Args:
            node: the layer.
            inputs: of the layer.
            constants: folded, the weight quantized.

        Raises:
            DataError: the batch has one value for each channel, and so no variance.
        """
        weight = constants["weight"]
        factor = self.factor().reshape(-1, *(1,) * (weight.ndim - 1))
        plain = {"weight": weight / factor, "bias": torch.zeros_like(constants["bias"])}
        made = node.operation.compute(inputs, plain)
        if made.numel() == made.shape[1]:
            raise DataError(
                f"the batch norm behind {node.name!r} ({node.source}) sees one value for each "
                "channel, whose variance is 0, in a batch of one sample: use batches of two or "
                "more (drop_last=True leaves out a smaller last one), or "
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
    """Takes the batch norms out of the layers that `prepare` folded them into, for training.

    What the prepared model computes in evaluation mode stays the same. Norms that do not stand
    right behind a convolution or a linear layer, or whose layer was changed since or has its weight
    at several places, stay folded.

    Args:
        prepared: changed in place; calibrated or not.
        model: as it was given to `prepare`.
        example: as it was given to `prepare`.

    Returns:
        The names of the layers whose norm is kept.

    Raises:
        UsageError: there is none.
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
            "no batch norm stands right behind a convolution or linear layer as it was prepared"
        )
    return tuple(kept)


def _keep(prepared: PreparedModel, layer: Node, norm: LiveBatchNorm, weight: Tensor) -> None:
    """Gives a layer its weight without the norm, which is kept beside it."""
    old = prepared.constants_of(layer)["bias"]
    prepared.set_constant(layer.name, "weight", weight.to(old.device))
    prepared.set_constant(layer.name, "bias", torch.zeros_like(old))
    prepared.keep_norm(layer.name, norm.to(old.device))
    quantizer = prepared.weight_quantizer(layer.name)
    norm.scales_move = quantizer.can_rescale
    if norm.scales_move and quantizer.is_fitted:
        quantizer.rescale(1 / norm.factor().abs().detach())


def _is_alone(prepared: PreparedModel, layer: Node) -> bool:
    """Tells whether no other place of the model has the layer's weight or bias."""
    return not any(prepared.places_of(layer, role) for role in layer.constants)


def _stands_behind(graph: FloatGraph, layer: Node) -> bool:
    """Tells whether the norm alone reads a layer whose channels are at axis 1."""
    if layer.operation.accumulates is not Accumulates.WEIGHTED:
        return False
    at_axis_1 = layer.operation.channels_in(len(layer.shape)) == 1
    return at_axis_1 and len(graph.users()[layer.name]) == 1


def _agrees(prepared: PreparedModel, layer: Node, folded: Mapping[str, Tensor]) -> bool:
    """Tells whether layer and norm, folded, are what was prepared."""
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
    """Lets training use the running statistics from now on, or no longer."""
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
    """Gives batch norms the mean statistics of some batches, under the weights of now.

    Running statistics remember weights that are no more. At few bits, where a weight between two
    codes goes to and fro, they may fit no weights at all. Codes of weights stay where the norms'
    scales move.

    Args:
        prepared: changed in place; norms that are frozen keep what they have.
        batches: inputs of the model, as it is trained on.
        average: replaces tensors by their means over all processes that train together.

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
            # Weights are folded with the old statistics for every batch alike.
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
        raise UsageError("measuring batch norms needs at least one batch, got none")
    if average is not None:
        average(totals)
    for total, found in zip(totals, statistics, strict=True):
        found.copy_(total / count)


@changes(Effect.KEEPS)
@float32_by_default()
def fold_batch_norms(prepared: PreparedModel) -> None:
    """Folds what `keep_batch_norms` kept into weights and biases for good.

    Evaluation computes the same before and after, up to the rounding of floats.

    Args:
        prepared: changed in place.
    """
    prepared.eval()
    with torch.no_grad():
        for node in prepared.graph.nodes:
            constants = prepared.constants_of(node)
            if module_key(node.name) in prepared.batch_norms:
                layer = prepared.layer(node)
                if layer.norm_unit is not None:
                    layer.quantizer.rescale(layer.norm_unit.reshape(-1))
                prepared.keep_norm(node.name, None)
                for role in ("weight", "bias"):
                    prepared.set_constant(node.name, role, constants[role])

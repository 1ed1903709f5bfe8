"""Says how wide the accumulators of layers must be, and makes small excesses fit.

`A2Q` and `A2QPlus` learn weights whose sums fit. `fit_accumulators` does it afterwards, for any
quantizer, and costs accuracy if much has to go. `convert` proves what both have reached.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from photomask.chip.conversion.builder import integer_codes
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.formats import Interval
from photomask.chip.operators.weights import channel_sums
from photomask.chip.prepared_layer import PreparedLayer
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PerChannel
from photomask.chip.standing import Effect, changes
from photomask.chip.sum_limits import BIAS_SHARE, Operand, capacity, project_onto_l1_ball
from photomask.chip.target import Target, load_target
from photomask.documents import Document
from photomask.errors import QuantizerError, TargetError
from photomask.report import Shown, Table
from photomask.stages import stage


class LayerSums(Document):
    """The sums of a layer over all inputs that its input codes allow."""

    layer: str
    norm: int
    """The largest l1 norm of a channel's weight integers."""
    bias: int
    """The largest magnitude of an integer bias, with the correction for the input's zero point."""
    low: int
    """The smallest partial sum, in any order of summation."""
    high: int
    """The largest partial sum."""

    @property
    def bits(self) -> int:
        """The bits of the narrowest signed accumulator that holds every partial sum."""
        return signed_bits(self.low, self.high)


class AccumulatorReport(Shown, Document):
    """The accumulators that the layers of a model need."""

    layers: tuple[LayerSums, ...]
    accumulator_bits: int | None = None
    """The width that the target has; None without a target."""

    @property
    def bits(self) -> int:
        """The bits that the layer with the largest sums needs."""
        return max((layer.bits for layer in self.layers), default=1)

    def shown(self) -> Table:
        """Returns a table with a row for each layer."""
        has = "" if self.accumulator_bits is None else str(self.accumulator_bits)
        rows: list[tuple[str, ...]] = [
            ("layer", "l1 norm", "bias", "lowest sum", "highest sum", "needs", "has")
        ]
        for layer in self.layers:
            numbers = (layer.norm, layer.bias, layer.low, layer.high, layer.bits)
            rows.append((layer.layer, *map(str, numbers), has))
        return Table("bits of accumulators", rows)


class LayerProjection(Document):
    """What the projection of one layer's weight has changed."""

    layer: str
    channels: int
    """The number of output channels that were projected."""
    bits: tuple[int, int]
    """The bits of the accumulator that the layer needed before, and needs now."""
    error: tuple[float, float]
    """The squared error of the quantized weight, relative to the weight's square, before and now.

    Both are relative to the weight before the projection.
    """


class ProjectionReport(Shown, Document):
    """The report of `fit_accumulators`."""

    accumulator_bits: int
    layers: tuple[LayerProjection, ...]
    """The layers that were changed."""

    def shown(self) -> Table:
        """Returns a table with a row for each layer that was changed."""
        rows: list[tuple[str, ...]] = [
            ("layer", "channels", "bits before", "bits", "error before", "error")
        ]
        for layer in self.layers:
            bits, errors = map(str, layer.bits), (f"{error:.3g}" for error in layer.error)
            rows.append((layer.layer, str(layer.channels), *bits, *errors))
        return Table(f"weights projected for accumulators of {self.accumulator_bits} bits", rows)


@dataclass(frozen=True, eq=False)
class _Integers:
    """The integers of a layer, and the bounds of its partial sums for each channel."""

    layer: PreparedLayer
    weight: np.ndarray
    product_bias: Tensor
    bias: np.ndarray
    operand: Operand
    lows: np.ndarray
    highs: np.ndarray

    @property
    def bits(self) -> int:
        return signed_bits(int(self.lows.min()), int(self.highs.max()))

    @property
    def real_weight(self) -> Tensor:
        """The quantized weight in real numbers, float64 on the CPU."""
        weight = torch.from_numpy(self.weight).double()
        return weight * self.layer.quantizer.scale_for(weight).detach().double().cpu()

    def exceeds(self, accumulator_bits: int) -> Tensor:
        """Returns, for each channel, whether a partial sum leaves the accumulator."""
        most = capacity(accumulator_bits)
        return torch.from_numpy(((self.lows < -most - 1) | (self.highs > most)).astype(bool))


@changes(Effect.READS)
@float32_by_default()
def needed_accumulator_bits(
    prepared: PreparedModel, target: Target | str | Path | None = None
) -> AccumulatorReport:
    """Returns how wide the accumulator of each layer with weights must be.

    A partial sum counts whatever the inputs are and in whatever order they are added, as in the
    proof of `convert`. The proof can be tighter, where an input never has some codes of its format.
    Sums without weights, such as averages, are left to the proof.

    Args:
        prepared: the calibrated or trained model.
        target: the target whose width is shown beside what is needed; None shows none.

    Raises:
        OrderError: the model is not calibrated, or was changed since.
        UsageError: batch norms are kept beside their layers.
    """
    has = None if target is None else load_target(target).accumulator_bits
    with torch.no_grad():
        layers = tuple(
            LayerSums(
                layer=found.layer.node.name,
                norm=int(np.abs(found.weight).reshape(len(found.weight), -1).sum(axis=1).max()),
                bias=int(np.abs(found.bias).max()),
                low=int(found.lows.min()),
                high=int(found.highs.max()),
            )
            for found in _integers_of(prepared)
        )
    return AccumulatorReport(layers=layers, accumulator_bits=has)


@changes(Effect.PROJECTS)
@stage(__name__, "fit accumulators")
@float32_by_default()
def fit_accumulators(prepared: PreparedModel, target: Target | str | Path) -> ProjectionReport:
    """Projects weights whose sums exceed the accumulators of a target, so that they fit.

    In each channel that exceeds, the weights are projected onto an l1 ball that the accumulator
    allows, or their positive and their negative part onto one ball each, whichever leaves the
    smaller squared error (`photomask.chip.sum_limits` has both laws). Weights are then rounded
    toward zero. Where that leaves room, those with the largest fractions, if these are above one
    half, are rounded up. Other channels stay as they are. The biases stay as well, and take their
    room first. Where one takes more than `BIAS_SHARE` of the accumulator, the scale of the
    channel's weight is raised by a power of two.

    It is for small excesses: large ones cost accuracy, and training with `A2Q` or `A2QPlus` costs
    less. The report says how much of the weights was lost.

    Args:
        prepared: the calibrated or trained model, which is changed in place. Afterwards its weights
            count as rounded to codes, so it cannot be calibrated again.
        target: the target of the later conversion, the name of a preset, or the path of a file.

    Returns:
        The layers that were changed, and the errors.

    Raises:
        OrderError: the model is not calibrated, or was changed since.
        QuantizerError: a weight that exceeds has scales per group, a zero point or codes that are
            not the nearest integers, or is also a table or a transposed weight.
        TargetError: beside the bias of a channel there is no room for a weight.
        UsageError: batch norms are kept beside their layers.

    Source: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high
    dimensions" (ICML); rounding toward zero as in Colbert et al. 2023, arXiv:2308.13504.
    """
    bits = load_target(target).accumulator_bits
    groups: dict[str, list[_Integers]] = {}
    reports = []
    with torch.no_grad():
        for found in _integers_of(prepared):
            groups.setdefault(found.layer.owner, []).append(found)
        for group in groups.values():
            over = torch.stack([found.exceeds(bits) for found in group]).any(dim=0)
            if bool(over.any()):
                reports.append(_project(prepared, group, over, bits))
    return ProjectionReport(accumulator_bits=bits, layers=tuple(reports))


def signed_bits(low: int, high: int) -> int:
    """Returns the bits of the narrowest signed format that holds 0 and both numbers."""
    return Interval(min(low, -1), max(high, 0)).bits


def _integers_of(prepared: PreparedModel) -> Iterator[_Integers]:
    """Yields the integers that `convert` computes for each layer with static scales."""
    return (_integers(layer) for layer in prepared.layers() if layer.has_static_scales)


def _integers(layer: PreparedLayer) -> _Integers:
    quantizer, operand = layer.quantizer, Operand.of(layer.input)
    where = f"weight of {layer.node.name!r} ({layer.node.source})"
    weight = torch.from_numpy(integer_codes(quantizer, layer.weight, where))
    weight = weight - quantizer.zero_point_for(weight).cpu()
    if quantizer.group_multiplier is not None:
        weight = weight * quantizer.granularity.align(quantizer.group_multiplier.cpu(), weight)
    integers = weight.numpy()
    bias = (layer.bias.double() / layer.unit).round().cpu()
    zero, sums = int(operand.zero_point), integers.reshape(len(integers), -1).sum(axis=1)
    corrected = bias.numpy().astype(np.int64) - zero * sums
    lows, highs = channel_sums(integers, corrected, Interval(operand.low, operand.high))
    return _Integers(layer, integers, bias, corrected, operand, lows, highs)


def _with_room(group: list[_Integers], over: Tensor, accumulator_bits: int) -> list[_Integers]:
    """Raises the scales of exceeding channels whose bias takes too much of the accumulator."""
    quantizer = group[0].layer.quantizer
    if not isinstance(quantizer.granularity, PerChannel):
        return group
    most = BIAS_SHARE * capacity(accumulator_bits)
    share = torch.stack([found.product_bias.abs() / most for found in group]).amax(dim=0)
    factor = torch.exp2(torch.where(over, share, 0.0).clamp(min=1).log2().ceil())
    scale = quantizer.scale.detach() * factor.to(quantizer.scale)
    quantizer.set_parameters(quantizer.format, scale, quantizer.zero_point)
    return [_integers(found.layer) for found in group]


def _project(
    prepared: PreparedModel, group: list[_Integers], over: Tensor, bits: int
) -> LayerProjection:
    """Projects the channels of a weight that exceed, for all layers that use it."""
    layer = group[0].layer
    _demand_projectable(prepared, layer)
    before = group[0].real_weight
    needed = max(found.bits for found in group)
    group = _with_room(group, over, bits)
    quantizer, weight = layer.quantizer, layer.weight.detach()
    rooms = [(capacity(bits) - found.product_bias.abs()).clamp(min=0) for found in group]
    total = torch.stack(
        [(room / float(f.operand.magnitude)).floor() for room, f in zip(rooms, group, strict=True)]
    ).amin(dim=0)
    side = torch.stack(
        [(room / f.operand.width).floor() for room, f in zip(rooms, group, strict=True)]
    ).amin(dim=0)
    _demand_room(layer, over & (torch.maximum(total, side) < 1), bits)
    scale = quantizer.scale_for(weight).detach().double().cpu()
    original = weight.double().cpu()
    ratio = (original / scale).flatten(1)
    # Values beyond the codes are clamped by the quantizer anyway.
    ratio = ratio.clamp(quantizer.codes.low, quantizer.codes.high)
    ball = _rounded(ratio, total)
    sides = _rounded(ratio.clamp(min=0), side) + _rounded(ratio.clamp(max=0), side)
    ball_error, side_error = ((x - ratio).square().sum(dim=1) for x in (ball, sides))
    chosen = torch.where((ball_error <= side_error)[:, None], ball, sides)
    channels = over.reshape(-1, *(1,) * (weight.ndim - 1))
    codes = chosen.reshape(weight.shape)
    changed = torch.where(channels, codes * scale, original).to(weight)
    again = quantizer.quantize(changed).double().cpu()
    if bool((torch.where(channels, again - codes, 0.0) != 0).any()):
        raise QuantizerError(
            f"weight of {layer.node.name!r} ({layer.node.source}): the codes of "
            f"{type(quantizer).__name__} are not the nearest integers to single values, so they "
            "cannot be projected; train with the target that you convert for, or use a uniform "
            "quantizer"
        )
    prepared.set_constant(layer.node.name, "weight", changed)
    now = [_integers(prepared.layer(found.layer.node)) for found in group]
    after = now[0].real_weight
    size = float(original.square().sum()) or 1.0
    first, last = (float((x - original).square().sum()) / size for x in (before, after))
    return LayerProjection(
        layer=layer.node.name,
        channels=int(over.sum()),
        bits=(needed, max(found.bits for found in now)),
        error=(first, last),
    )


def _rounded(ratio: Tensor, budget: Tensor) -> Tensor:
    """Returns integers near the rows of `ratio`, [C, N], whose l1 norms are at most the budgets."""
    nearest = project_onto_l1_ball(ratio, budget)
    toward_zero = nearest.trunc()
    left = budget - toward_zero.abs().sum(dim=1)
    fraction = (nearest - toward_zero).abs()
    # A row's elements in the order of their fractions; as many go up as the budget has left.
    rank = fraction.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    up = (fraction > 0.5) & (rank < left[:, None])
    return toward_zero + nearest.sign() * up


def _demand_projectable(prepared: PreparedModel, layer: PreparedLayer) -> None:
    quantizer = layer.quantizer
    problem = ""
    if quantizer.group_multiplier is not None:
        problem = "has scales per group"
    elif bool(quantizer.zero_point.any()):
        problem = "has a zero point"
    elif not prepared.can_round(layer.node):
        problem = "is also a table or a transposed weight"
    if problem:
        raise QuantizerError(
            f"weight of {layer.node.name!r} ({layer.node.source}) exceeds the accumulator and "
            f"{problem}, so it cannot be projected; give it fewer bits, or the target wider "
            "accumulators"
        )


def _demand_room(layer: PreparedLayer, full: Tensor, bits: int) -> None:
    """Refuses channels in which the bias leaves no room for a weight."""
    if not bool(full.any()):
        return
    channel = int(full.nonzero()[0])
    raise TargetError(
        f"weight of {layer.node.name!r} ({layer.node.source}): in channel {channel} the bias "
        f"leaves no room for a code of 1 in an accumulator of {bits} bits with input codes of "
        f"{layer.input.format}, by both laws of sums: p + n <= (M - |b|) / m and max(p, n) <= "
        "(M - |b|) / (h + |l|). Give the input or the weight fewer bits, train with A2Q, or give "
        "the target wider accumulators"
    )

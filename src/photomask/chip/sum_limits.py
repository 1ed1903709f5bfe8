"""Derives from accumulators how large the weights of a layer may be, for `A2Q` and `A2QPlus`.

A program proves that no partial sum of a layer leaves the accumulator. For one output channel, with
the sum `p` of the positive codes of the weight and `n` of the magnitudes of the negative ones, with
input codes from `l <= 0` to `h >= 0`, an input's zero point `z`, an integer bias `b` and an
accumulator of `P` bits, with `M = 2**(P-1) - 1`, it proves

    p * h + n * |l| + max(0, b - z * (p - n)) <= M
    p * |l| + n * h + max(0, z * (p - n) - b) <= M + 1

Both hold where one of these two laws of sums holds:

    p + n     <= (M - |b|) / m,   m = max(h, |l|, h - z, |l| + z)
    max(p, n) <= (M - |b|) / (h + |l|)

The first limits the l1 norm, as A2Q does, and the second is the one of A2Q+. For unsigned input
codes without a zero point, the second allows norms that are twice as large. The bias may take
`BIAS_SHARE` of the accumulator. Where it would take more, the scale of the weight is raised, in
training as well as afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomask.chip.prepared_layer import PreparedLayer
from photomask.chip.quantizers import A2Q, A2QPlus, PowerOfTwoFactors, Quantizer
from photomask.errors import TargetError

BIAS_SHARE = 0.5
"""The largest share of an accumulator that a bias may take."""
EXACT = 2.0**14
"""Limits above it are lowered by `MARGIN`, because norms in float32 are not exact there."""
MARGIN = 2.0**-12
CANDIDATES = tuple(2.0 ** (step / 4) for step in range(-4, 21))
"""The factors of the fitted scale among which `choose_scales` chooses, for each channel."""


@dataclass(frozen=True)
class Operand:
    """The input codes of a layer.

    Attributes:
        low: the smallest code, or 0 where all are larger.
        high: the largest code, or 0 where all are smaller.
        zero_point: int64, [].
    """

    low: int
    high: int
    zero_point: Tensor

    @classmethod
    def of(cls, quantizer: Quantizer) -> "Operand":
        """Returns the codes that a layer reads where its input has this quantizer.

        Codes with a factor for each channel are shifted left into 16 bits before a layer reads
        them.
        """
        if isinstance(quantizer, PowerOfTwoFactors):
            zero = torch.zeros((), dtype=torch.int64, device=quantizer.scale.device)
            return cls(-(1 << 15), (1 << 15) - 1, zero)
        format = quantizer.format
        return cls(min(format.low, 0), max(format.high, 0), quantizer.zero_point.detach())

    @property
    def magnitude(self) -> Tensor:
        """The factor `m` of the first law, float64, []."""
        zero = self.zero_point.double()
        plain = max(self.high, -self.low)
        return torch.maximum(self.high - zero, zero - self.low).clamp(min=plain)

    @property
    def width(self) -> int:
        """The factor `h + |l|` of the second law."""
        return self.high - self.low


def capacity(accumulator_bits: int) -> int:
    """Returns the largest integer of an accumulator."""
    return (1 << (accumulator_bits - 1)) - 1


def limited_quantizers(prepared: Any) -> Iterator[tuple[A2Q, list[PreparedLayer]]]:
    """Yields every quantizer whose sums are limited, with the layers that use it."""
    found: dict[int, tuple[A2Q, list[PreparedLayer]]] = {}
    if not any(isinstance(q, A2Q) for q in prepared.weight_quantizers.values()):
        return
    for node in prepared.graph.nodes:
        if "weight" not in node.constants:
            continue
        quantizer = prepared.weight_quantizer(node.name)
        if isinstance(quantizer, A2Q) and quantizer.accumulator_bits is not None:
            _, layers = found.setdefault(id(quantizer), (quantizer, []))
            layers.append(prepared.layer(node))
    yield from found.values()


@torch.no_grad()
def update_sum_limits(prepared: Any, *, raises_scales: bool = True) -> None:
    """Gives every `A2Q` quantizer the limit that its layers' biases and inputs leave now.

    A prepared model calls it at each forward pass in training mode.

    Args:
        prepared: the calibrated model, whose quantizers are changed in place.
        raises_scales: True also raises the scales of channels whose bias takes too large a share of
            the accumulator. False is for scales that are aligned to a target.
    """
    for quantizer, layers in limited_quantizers(prepared):
        _update(quantizer, layers, raises_scales)


def _update(quantizer: A2Q, layers: list[PreparedLayer], raises_scales: bool) -> None:
    if raises_scales:
        needed = [
            _bias_in_scales(layer, quantizer) / (BIAS_SHARE * _capacity(quantizer, layer))
            for layer in layers
        ]
        quantizer.least_scale.copy_(torch.stack(needed).amax(dim=0))
    scale = quantizer.scale.double()
    limits = [_limit(quantizer, layer, scale) for layer in layers]
    quantizer.limit.copy_(torch.stack(limits).amin(dim=0))


def _capacity(quantizer: A2Q, layer: PreparedLayer) -> int:
    """Returns the largest sum; operands that are wider for a while get a wider accumulator."""
    bits = quantizer.accumulator_bits or 0
    wider = quantizer.bits + layer.input.bits - quantizer.operand_bits
    return capacity(bits + max(0, wider))


def _bias_in_scales(layer: PreparedLayer, quantizer: A2Q) -> Tensor:
    """Returns the weight scale at which the bias of each channel would be one unit, float64."""
    return layer.bias.abs().double() * quantizer.scale.double() / layer.unit


def _limit(quantizer: A2Q, layer: PreparedLayer, scale: Tensor) -> Tensor:
    """Returns the largest l1 norm of each channel's codes."""
    most, x = _capacity(quantizer, layer), Operand.of(layer.input)
    room = (most - (_bias_in_scales(layer, quantizer) / scale).ceil()).clamp(min=0)
    plus = isinstance(quantizer, A2QPlus)
    limit = (room / x.width).floor() * 2 if plus else (room / x.magnitude).floor()
    safe = (limit * (1 - MARGIN)).floor()
    return torch.where(limit > EXACT, safe - safe % 2, limit)


@torch.no_grad()
def choose_scales(prepared: Any) -> None:
    """Chooses the scales of `A2Q` quantizers after fitting, and sets their limits.

    A limit on the codes is a limit on the weights, in units of the scale. A larger scale loses
    precision, and a smaller one loses large weights. Each channel gets the scale among
    `CANDIDATES` times the fitted one that leaves the least squared error, with weights that were
    projected onto the l1 ball of the limit.

    Args:
        prepared: the fitted model, whose quantizers are changed in place.

    Raises:
        TargetError: an accumulator is so narrow that not even codes of 1 fit beside the bias.
    """
    for quantizer, layers in limited_quantizers(prepared):
        for layer in layers:
            _demand_room(quantizer, layer)
        weight = layers[0].measured_weight.detach()
        v = quantizer.centred(weight)
        fitted = quantizer.scale.detach()
        best, least = fitted, torch.full_like(fitted, torch.inf, dtype=torch.float64)
        for factor in CANDIDATES:
            quantizer.set_parameters(quantizer.format, fitted * factor, quantizer.zero_point)
            _update(quantizer, layers, raises_scales=True)
            radius = quantizer.limit * quantizer.scale
            projected = project_onto_l1_ball(v.flatten(1), radius).reshape(v.shape)
            quantizer.set_norm(quantizer.norm_of(projected).flatten())
            value = quantizer.dequantize(quantizer.quantize(projected))
            error = (value - v).double().square().flatten(1).sum(dim=1)
            best = torch.where(error < least, quantizer.scale, best)
            least = torch.minimum(error, least)
        quantizer.set_parameters(quantizer.format, best, quantizer.zero_point)
        quantizer.set_norm(quantizer.norm_of(v).flatten())
        _update(quantizer, layers, raises_scales=True)


def _demand_room(quantizer: A2Q, layer: PreparedLayer) -> None:
    """Refuses an accumulator in which codes of 1 do not fit beside the largest bias."""
    x, most = Operand.of(layer.input), _capacity(quantizer, layer)
    plus = isinstance(quantizer, A2QPlus)
    largest = float(x.width if plus else x.magnitude)
    if most * (1 - BIAS_SHARE) >= largest:
        return
    law = "max(p, n) <= (M - |b|) / (h + |l|)" if plus else "p + n <= (M - |b|) / m"
    raise TargetError(
        f"weight of {layer.node.name!r} ({layer.node.source}): an accumulator of "
        f"{quantizer.accumulator_bits} bits holds sums up to {most}, of which a bias may take "
        f"{BIAS_SHARE:.0%}. The law of sums {law} then leaves less than 1 for input codes of "
        f"{layer.input.format}, so every weight would be 0. Give the input fewer bits, or the "
        "target wider accumulators"
    )


def project_onto_l1_ball(rows: Tensor, radius: Tensor) -> Tensor:
    """Returns the nearest points whose l1 norms are at most the radii.

        sign(v) * max(|v| - theta, 0),   theta so that the norm is the radius

    Rows inside the ball stay as they are.

    Args:
        rows: the points, [rows, elements].
        radius: the radii, [rows], at least 0.

    Source: Duchi et al. 2008, figure 1, "Efficient projections onto the l1-ball for learning in
    high dimensions" (ICML).
    """
    size = rows.abs().double()
    radius = radius.double()[:, None]
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=rows.device)
    excess = (ordered.cumsum(dim=1) - radius) / count
    kept = (ordered > excess).sum(dim=1, keepdim=True).clamp(min=1)
    threshold = excess.gather(1, kept - 1)
    shrunk = rows.sign() * (size - threshold).clamp(min=0).to(rows.dtype)
    inside = size.sum(dim=1, keepdim=True) <= radius
    return torch.where(inside, rows, shrunk)

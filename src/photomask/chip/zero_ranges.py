"""Chooses scales for tensors in which calibration saw only zeros.

A range that holds only 0 determines no scale, because every scale represents 0 exactly. The scale
still matters, because other tensors are expressed in it: the bias of a layer is added in units of
`input scale * weight scale`, and a sum brings its inputs to one scale. An arbitrary scale would
lose the bias, or would need a rescaling that no target can do. The scale therefore follows from the
surroundings of the tensor. The reach of an edge is the largest magnitude that its codes represent.

- **Activations**, constants and tables get a reach that their readers determine. The input of a
  sum, a concatenation or an average gets the reach of the result. A factor of a product gets the
  reach of the product, divided by that of the other factor. The input of a layer gets the reach of
  the layer's output, divided by the largest sum of magnitudes in a row of the weight. The scores of
  a softmax get `(EXPONENT_BITS + 1) ln 2`, beyond which the exponentials are 0. Where no reader
  determines the reach, the inputs of the node do. Where the whole model is 0, the reach is 1.
- **Weights.** A channel of zeros gets the largest scale of the other channels. Its bias is then as
  precise as theirs, and its multiplier fits a shift that they share. Where all weights are 0, one
  unit of the accumulator becomes `BIAS_UNIT` times the output's scale. A channel whose sum of
  products stays below `NEGLIGIBLE` times the output's scale for every input counts as zero.
"""

import math

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Accumulates, Tokens
from photomask.chip.observers import Grid
from photomask.chip.operators.softmax import EXPONENT_BITS
from photomask.chip.prepared_layer import PreparedLayer
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PerTensor, PowerOfTwoFactors, Quantizer
from photomask.errors import QuantizerError

BIAS_UNIT = 2.0**-8
"""The unit of the accumulator of a layer with zero weights, relative to the output's scale.

The bias of such a layer is exact to half of it.
"""
NORMALIZED = (Accumulates.SHARES, Accumulates.NORMALS)
"""Operations whose results do not grow with their inputs, and so determine no reach for them."""
NEGLIGIBLE = 0.25
"""A sum of products below this, relative to the output's scale, counts as 0."""


def settle_zero_activations(prepared: PreparedModel) -> None:
    """Gives a scale to activations in which only 0 was observed; see the module's docstring.

    Args:
        prepared: the model, whose quantizers are fitted; it is changed in place.
    """
    waiting = [
        node.name
        for node in prepared.graph.nodes
        if node.operation.decides_scale
        and prepared.scale_owner(node.name) == node.name
        and prepared.activation_quantizer(node.name).saw_only_zero
    ]
    while waiting:
        found = next(
            (
                (name, reach)
                for suggest in (_by_readers, _by_inputs)
                for name in reversed(waiting)
                if (reach := suggest(prepared, name, waiting)) is not None
            ),
            (waiting[0], 1.0),
        )
        name, reach = found
        _give_reach(prepared.activation_quantizer(name), prepared.graph.by_name[name], reach)
        waiting.remove(name)


def _reach(quantizer: Quantizer) -> float:
    """Returns the largest magnitude that the codes of an edge represent."""
    zero, codes = quantizer.zero_point, quantizer.codes
    most = torch.maximum((codes.high - zero).abs(), (codes.low - zero).abs())
    return float((most * quantizer.scale.detach().double()).max())


def _by_readers(prepared: PreparedModel, name: str, waiting: list[str]) -> float | None:
    """Returns the largest reach that a reader of an edge asks for; None if none is known."""
    found = []
    for node in prepared.graph.nodes:
        owners = [prepared.scale_owner(source) for source in node.inputs]
        if name not in owners:
            continue
        if node.operation.accumulates is Accumulates.SHARES and owners[0] == name:
            found.append((EXPONENT_BITS + 1) * math.log(2))
        owner = prepared.scale_owner(node.name)
        if node.operation.accumulates in NORMALIZED or owner in (name, *waiting):
            continue
        result, others = (
            _reach(prepared.activation_quantizer(node.name)),
            [x for x in owners if x != name],
        )
        if node.operation.accumulates is Accumulates.PRODUCTS:
            if not others or others[0] in waiting:
                continue
            result /= (
                _reach(prepared.activation_quantizer(others[0])) * node.operation.product_factor
            )
        elif node.operation.accumulates is Accumulates.WEIGHTED:
            size = _row_size(prepared, node)
            if not size:
                continue
            result /= size
        found.append(result)
    return max(found, default=None)


def _by_inputs(prepared: PreparedModel, name: str, waiting: list[str]) -> float | None:
    """Returns the reach that follows from a node's inputs; None if none of them is known."""
    node = prepared.graph.by_name[name]
    owners = {x: prepared.graph.by_name[prepared.scale_owner(x)] for x in node.inputs}
    known = [
        x
        for x, owner in owners.items()
        if owner.name not in waiting and not isinstance(owner.operation, Tokens)
    ]
    if not known:
        return None
    reach = max(_reach(prepared.activation_quantizer(x)) for x in known)
    size = _row_size(prepared, node) if "weight" in node.constants else 0.0
    return reach * (size or 1.0)


def _row_size(prepared: PreparedModel, node: Node) -> float:
    """Returns the largest sum of magnitudes in a row of a weight."""
    weight = prepared.constants_of(node)["weight"].detach().double()
    return float(weight.abs().flatten(1).sum(dim=1).max())


def _give_reach(quantizer: Quantizer, node: Node, reach: float) -> None:
    """Sets the scale for the range from `-reach` to `reach`, limited by the node's fused clamp."""
    reach = min(max(reach, 2.0**-100), 2.0**100)
    ends = torch.tensor([-reach, reach])
    if node.clamp is not None and bool((clamped := node.clamp.apply(ends)).any()):
        ends = clamped
    low, high = ends
    format = quantizer.format
    if quantizer.symmetric and quantizer.signed is None:
        format = IntFormat(bits=format.bits, signed=bool(low < 0))
    grid = Grid(format, quantizer.symmetric, quantizer.narrow, quantizer.power_of_two)
    scale, shape = grid.scale(low, high), quantizer.scale.shape
    zero_point = grid.zero_point(low, scale)
    quantizer.set_parameters(format, scale.expand(shape), zero_point.expand(shape))
    if isinstance(quantizer, PowerOfTwoFactors):
        quantizer.wanted = quantizer.scale.double()


def settle_zero_weights(prepared: PreparedModel) -> None:
    """Gives a scale to weights and channels of weights that are 0; see the module's docstring.

    Args:
        prepared: the calibrated model, which is changed in place.

    Raises:
        QuantizerError: a quantizer has no code for 0.
    """
    for layer in prepared.layers():
        if layer.quantizer.is_fitted and layer.quantizer.has_static_scale:
            _settle_weight(layer)


def _settle_weight(layer: PreparedLayer) -> None:
    quantizer, weight = layer.quantizer, layer.weight.detach()
    size = weight.double().abs().flatten(1).sum(dim=1)
    if not bool(size.all()):
        _demand_zero(quantizer, weight, layer.node)
    step = layer.output.scale.detach().double().min()
    dead = size * _reach(layer.input) < NEGLIGIBLE * step.to(size.device)
    if isinstance(quantizer.granularity, PerTensor):
        dead = dead.all().reshape(1)
    if not bool(dead.any()):
        return
    scale = quantizer.channel_scale if quantizer.channel_scale is not None else quantizer.scale
    live = scale.detach().reshape(-1)
    if bool(dead.all()):
        wanted = _unit_of_output(layer).to(live)
    else:
        wanted = live[~dead.to(live.device)].max()
    settled = torch.where(dead.to(live.device), wanted, live).reshape(scale.shape)
    if quantizer.channel_scale is not None and quantizer.group_multiplier is not None:
        quantizer.channel_scale = settled
        settled = settled[:, None] * quantizer.group_multiplier
    quantizer.set_parameters(quantizer.format, settled, quantizer.zero_point)


def _demand_zero(quantizer: Quantizer, weight: Tensor, node: Node) -> None:
    """Raises an error where a channel is 0 and the quantizer has no code for 0."""
    nothing = torch.zeros_like(weight)
    if bool((quantizer.quantize(nothing) != quantizer.zero_point_for(nothing)).any()):
        raise QuantizerError(
            f"weight of {node.name!r} ({node.source}): channels of it are 0, and "
            f"{type(quantizer).__name__} has no code for 0; exclude the layer with `keep` in the "
            "recipe, or give it another quantizer"
        )


def _unit_of_output(layer: PreparedLayer) -> Tensor:
    """Returns the weight scale, [], for which the accumulator's unit follows `BIAS_UNIT`."""
    step = layer.output.scale.detach().double().min()
    x = layer.input.scale.detach().double().min()
    wanted, unit = step * BIAS_UNIT / x, layer.norm_unit
    if unit is not None:
        wanted = wanted / unit.detach().double().reshape(-1).max()
    wanted = wanted.clamp(2.0**-100, 2.0**100)
    return torch.exp2(wanted.log2().floor()) if layer.quantizer.power_of_two else wanted

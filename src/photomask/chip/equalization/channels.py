"""Scale moved between two neighbours, and biases that make up for rounded weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Convolution, Input, Linear
from photomask.chip.graph.transformer_operations import Normalize
from photomask.chip.preparation import PreparedModel
from photomask.errors import DataError, UsageError

SMALLEST = 1e-5
"""Ranges below it count as this large: a dead channel is not blown up."""


@dataclass(frozen=True)
class Channel:
    """A place where channels can be rescaled: who makes them, and who reads them all.

    Attributes:
        maker: a norm or a layer.
        readers: layers that alone read the maker's output.
    """

    maker: Node
    readers: tuple[Node, ...]


@float32_by_default()
def smooth(
    prepared: PreparedModel, data: Data, *, strength: float = 0.5, shift: bool = False
) -> int:
    """Moves the range of norms' outputs into the weights of the layers that read them.

    Channel `j` of a norm's gain and bias is divided by `s_j = max|x_j|**a / max|w_j|**(1 - a)`, the
    columns of the weights are multiplied by it, `a` being `strength`: activations with a few large
    channels, as transformers have them, become easier to quantize, weights a little harder.

    Args:
        prepared: changed in place; not calibrated yet.
        data: as for `calibrate`.
        strength: 0 moves nothing but the weights' own ranges, 1 everything.
        shift: also move the middle `z_j` of every channel's range to 0: the norm's bias takes
            `-z_j`, the layers' biases `W z`. Channels far from 0 become small, which costs their
            readers nothing; a norm without a bias gets one.

    Returns:
        How many norms were smoothed.

    Raises:
        DataError: no data, or it does not fit the model.

    Source: SmoothQuant, Xiao et al. 2023, equation 4, arXiv:2211.10438; the shift is that of
    Outlier Suppression+, Wei et al. 2023, equations 1 and 2, arXiv:2304.09145.
    """
    places = [
        place for place in rescalable(prepared) if isinstance(place.maker.operation, Normalize)
    ]
    bounds = bounds_of(prepared, data, {place.maker.name for place in places})
    with torch.no_grad():
        for place in places:
            low, high = bounds[place.maker.name]
            if shift:
                _move_to_zero(prepared, place, (low + high) / 2)
                low, high = (low - high) / 2, (high - low) / 2
            x = torch.maximum(-low, high).clamp(min=SMALLEST)
            w = torch.stack([_column_ranges(prepared, reader) for reader in place.readers])
            scale = x**strength / w.amax(dim=0).clamp(min=SMALLEST) ** (1 - strength)
            rescale(prepared, place, scale)
    return len(places)


def _move_to_zero(prepared: PreparedModel, place: Channel, middle: Tensor) -> None:
    """Takes a value from each of a maker's channels, and adds it back behind the readers."""
    prepared.constants_of(place.maker)["bias"].sub_(middle)
    for reader in place.readers:
        constants = prepared.constants_of(reader)
        constants["bias"].add_(constants["weight"] @ middle)


@float32_by_default()
def equalize(prepared: PreparedModel) -> int:
    """Gives the channels between two layers the same range in both weights.

    With `r1` the range of a channel's row in the first weight and `r2` that of its column in the
    second, the row is divided by `sqrt(r1 / r2)` and the column multiplied by it. A ReLU between
    them lets factors pass. Weights with one scale per tensor gain most.

    Args:
        prepared: changed in place; not calibrated yet.

    Returns:
        How many pairs of layers were equalized.

    Source: Nagel et al. 2019, section 4.1, arXiv:1906.04721.
    """
    _demand_folded(prepared)
    places = [
        place
        for place in rescalable(prepared)
        if len(place.readers) == 1 and not isinstance(place.maker.operation, Normalize)
    ]
    with torch.no_grad():
        for place in places:
            weight = prepared.constants_of(place.maker)["weight"]
            first = weight.abs().flatten(1).amax(dim=1).clamp(min=SMALLEST)
            second = _column_ranges(prepared, place.readers[0]).clamp(min=SMALLEST)
            rescale(prepared, place, (first / second).sqrt())
    return len(places)


@float32_by_default()
def correct_biases(prepared: PreparedModel, data: Data) -> int:
    """Adds to each bias what quantizing the weights takes from the layer's mean output.

    Layer by layer, `bias[c] += mean(W x)[c] - mean(Wq x)[c]` over the data, `x` being the float
    input of the layer.

    Args:
        prepared: changed in place. Its weight quantizers are fitted if they are not.
        data: as for `calibrate`.

    Returns:
        How many layers were corrected.

    Source: Nagel et al. 2019, section 4.2, arXiv:1906.04721.
    """
    _demand_folded(prepared)
    layers = {
        node.name: node
        for node in prepared.graph.nodes
        if isinstance(node.operation, (Convolution, Linear))
    }
    shifts = {name: torch.zeros(()) for name in layers}
    count = 0
    with torch.no_grad():
        for node in layers.values():
            quantizer = prepared.weight_quantizer(node.name)
            if not quantizer.is_fitted:
                quantizer.observe(prepared.constants_of(node)["weight"])
                quantizer.fit()
        for inputs in batches_of(prepared.graph, data):
            count += len(inputs[0])
            for node, values in _values(prepared, inputs):
                if node.name in layers:
                    shifts[node.name] = shifts[node.name] + _weight_error(prepared, node, values)
        if not count:
            raise DataError("correcting biases needs at least one sample, got none")
        for name, node in layers.items():
            prepared.constants_of(node)["bias"].add_(shifts[name] / count)
    return len(layers)


def _demand_folded(prepared: PreparedModel) -> None:
    if prepared.batch_norms:
        raise UsageError(
            f"{len(prepared.batch_norms)} layers have a batch norm beside their weights, which "
            "would undo the change: call fold_batch_norms(prepared) first"
        )


def _weight_error(prepared: PreparedModel, node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Returns `sum over samples of the mean of (W - Wq) x`, [channels]."""
    weight = prepared.constants_of(node)["weight"]
    error = weight - prepared.weight_quantizer(node.name)(weight)
    constants = {"weight": error, "bias": torch.zeros(len(weight))}
    result = node.operation.compute(inputs, constants)
    channels = result.ndim - 1 if isinstance(node.operation, Linear) else 1
    others = [axis for axis in range(1, result.ndim) if axis != channels]
    return (result.mean(dim=others) if others else result).sum(dim=0)


def rescalable(prepared: PreparedModel) -> list[Channel]:
    """Returns where a factor per channel can pass from the maker of an edge to all its readers."""
    nodes, users = prepared.graph.by_name, prepared.graph.users()
    found = []
    for node in prepared.graph.nodes:
        if not isinstance(node.operation, (Normalize, Convolution, Linear)):
            continue
        if node.clamp is not None and (node.clamp.low, node.clamp.high) != (0.0, math.inf):
            continue
        readers = [nodes.get(name) for name in users[node.name]]
        if readers and all(reader is not None and _takes(reader, node) for reader in readers):
            found.append(Channel(node, tuple(reader for reader in readers if reader is not None)))
    return found


def _takes(reader: Node, maker: Node) -> bool:
    """Tells whether the columns of a reader's weight are the channels of a maker."""
    if isinstance(reader.operation, Linear):
        return not isinstance(maker.operation, Convolution)
    return (
        isinstance(reader.operation, Convolution)
        and isinstance(maker.operation, Convolution)
        and reader.operation.groups == 1
    )


def _column_ranges(prepared: PreparedModel, reader: Node) -> Tensor:
    """Returns the largest magnitude of each input channel's weights."""
    weight = prepared.constants_of(reader)["weight"].abs()
    return weight.transpose(0, 1).flatten(1).amax(dim=1)


def rescale(prepared: PreparedModel, place: Channel, scale: Tensor) -> None:
    """Divides the maker's channels by `scale`, and multiplies the readers' columns by it."""
    constants = prepared.constants_of(place.maker)
    weight = constants["gain" if isinstance(place.maker.operation, Normalize) else "weight"]
    weight.div_(scale.reshape(-1, *(1,) * (weight.ndim - 1)))
    constants["bias"].div_(scale)
    for reader in place.readers:
        weight = prepared.constants_of(reader)["weight"]
        weight.mul_(scale.reshape(-1, *(1,) * (weight.ndim - 2)))


def ranges_of(prepared: PreparedModel, data: Data, names: set[str]) -> dict[str, Tensor]:
    """Returns the largest magnitude of each channel of the last axis, of some edges."""
    bounds = bounds_of(prepared, data, names)
    return {name: torch.maximum(-low, high) for name, (low, high) in bounds.items()}


def bounds_of(
    prepared: PreparedModel, data: Data, names: set[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the least and the largest value of each channel of the last axis, of some edges."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for inputs in batches_of(prepared.graph, data):
            for node, value in prepared.graph.run(inputs, prepared.constants_of):
                if node.name in names:
                    rows = value.flatten(0, -2)
                    low, high = rows.amin(dim=0), rows.amax(dim=0)
                    before = found.get(node.name, (low, high))
                    found[node.name] = torch.minimum(before[0], low), torch.maximum(before[1], high)
    if len(found) < len(names):
        raise DataError("smoothing needs at least one sample, got none")
    return found


def _values(prepared: PreparedModel, inputs: Sequence[Tensor]):
    """Yields every node and its inputs, computed in float with the prepared model's weights."""
    values = dict(zip(prepared.graph.inputs, inputs, strict=True))
    for node in prepared.graph.nodes:
        operands = [values[name] for name in node.inputs]
        if not isinstance(node.operation, Input):
            values[node.name] = compute(node, operands, prepared.constants_of(node))
        yield node, operands

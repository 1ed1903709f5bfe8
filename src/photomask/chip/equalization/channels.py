"""Moves scale between neighbouring layers, and corrects biases for the rounding of weights."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of, fit_biases
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Accumulates, Convolution, Input, Linear, Normalize
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect, Phase, changes
from photomask.errors import DataError, UsageError
from photomask.report import Progress, without_progress

SMALLEST = 1e-5
"""Smaller ranges are replaced by this one, so that no factor of a dead channel gets too large."""


@dataclass(frozen=True)
class Channel:
    """A norm or layer whose channels can be rescaled, with the layers that read it.

    There are several makers where the model uses a norm or a layer at several places. The tensors
    that they share are rescaled once, by one factor for all of them.

    Attributes:
        makers: the norms or layers that compute the channels, in the order of computation; usually
            there is one.
        readers: the layers that read the makers' outputs; nothing else reads them.
    """

    makers: tuple[Node, ...]
    readers: tuple[Node, ...]

    @property
    def maker(self) -> Node:
        """The first maker."""
        return self.makers[0]


@changes(Effect.REWRITES)
@float32_by_default()
def smooth(
    prepared: PreparedModel,
    data: Data,
    *,
    strength: float = 0.5,
    shift: bool = False,
    progress: Progress = without_progress,
) -> int:
    """Divides the outputs of norms by a factor per channel, and multiplies their readers' weights.

    Channel `j` of a norm's gain and bias is divided by `s_j = max|x_j|**a / max|w_j|**(1 - a)`, and
    column `j` of the readers' weights is multiplied by it, where `a` is `strength`. Activations
    with a few large channels, as in transformers, so become easier to quantize, and weights a
    little harder. The scales are undecided afterwards, so `calibrate` has to follow.

    Args:
        prepared: the model, which is changed in place and need not be calibrated.
        data: the data, as for `calibrate`.
        strength: the exponent `a`. With 0 the columns of the weights get equal ranges, with 1 the
            channels of the activations do.
        shift: True also moves the middle `z_j` of every channel's range to 0. The norm's bias is
            reduced by `z_j`, and the layers' biases are increased by `W z`. Channels far from 0
            become small at no cost to their readers. A norm without a bias gets one.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Returns:
        The number of norms that were smoothed.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the weights are rounded already.

    Source: SmoothQuant, Xiao et al. 2023, equation 4, arXiv:2211.10438; the shift is that of
    Outlier Suppression+, Wei et al. 2023, equations 1 and 2, arXiv:2304.09145.
    """
    places = [
        place for place in rescalable(prepared) if isinstance(place.maker.operation, Normalize)
    ]
    makers = {maker.name for place in places for maker in place.makers}
    bounds = bounds_of(prepared, data, makers, progress)
    with torch.no_grad():
        for place in places:
            ends = [bounds[maker.name] for maker in place.makers]
            low = torch.stack([low for low, _ in ends]).amin(dim=0)
            high = torch.stack([high for _, high in ends]).amax(dim=0)
            if shift:
                _move_to_zero(prepared, place, (low + high) / 2)
                low, high = (low - high) / 2, (high - low) / 2
            x = torch.maximum(-low, high).clamp(min=SMALLEST)
            w = torch.stack([_column_ranges(prepared, reader) for reader in place.readers])
            scale = x**strength / w.amax(dim=0).clamp(min=SMALLEST) ** (1 - strength)
            rescale(prepared, place, scale)
    return sum(len(place.makers) for place in places)


def _move_to_zero(prepared: PreparedModel, place: Channel, middle: Tensor) -> None:
    """Subtracts a value from each channel of the makers, and corrects the readers' biases."""
    for maker in _once(prepared, place.makers, "bias"):
        bias = prepared.constants_of(maker)["bias"]
        prepared.set_constant(maker.name, "bias", bias - middle)
    for reader in _once(prepared, place.readers, "bias"):
        constants = prepared.constants_of(reader)
        moved = constants["bias"] + constants["weight"] @ middle
        prepared.set_constant(reader.name, "bias", moved)


def _once(prepared: PreparedModel, nodes: Sequence[Node], role: str) -> list[Node]:
    """Returns the nodes, but of those that share a constant only the first."""
    tensors = {prepared.graph.tensor_of(node.constants[role]): node for node in reversed(nodes)}
    return list(reversed(tensors.values()))


@changes(Effect.REWRITES)
@float32_by_default()
def equalize(prepared: PreparedModel) -> int:
    """Gives the channels between two layers the same range in both weights.

    Let `r1` be the range of a channel's row in the first weight and `r2` that of its column in the
    second. The row is divided by `sqrt(r1 / r2)`, and the column is multiplied by it. A ReLU may
    lie between the layers. Weights with one scale per tensor gain most. The scales are undecided
    afterwards, so `calibrate` has to follow.

    Args:
        prepared: the model, which is changed in place and need not be calibrated.

    Returns:
        The number of pairs of layers that were equalized.

    Raises:
        OrderError: the weights are rounded already.
        UsageError: batch norms are kept beside their layers.

    Source: Nagel et al. 2019, section 4.1, arXiv:1906.04721.
    """
    _demand_folded(prepared)
    places = [
        place
        for place in rescalable(prepared)
        if len(place.readers) == len(place.makers)
        and not isinstance(place.maker.operation, Normalize)
    ]
    with torch.no_grad():
        for place in places:
            weights = [prepared.constants_of(maker)["weight"] for maker in place.makers]
            rows = [weight.abs().flatten(1).amax(dim=1) for weight in weights]
            first = torch.stack(rows).amax(dim=0).clamp(min=SMALLEST)
            columns = [_column_ranges(prepared, reader) for reader in place.readers]
            second = torch.stack(columns).amax(dim=0).clamp(min=SMALLEST)
            rescale(prepared, place, (first / second).sqrt())
    return sum(len(place.makers) for place in places)


@changes(Effect.CORRECTS)
@float32_by_default()
def correct_biases(
    prepared: PreparedModel, data: Data, *, progress: Progress = without_progress
) -> int:
    """Corrects biases by the change of a layer's mean output that rounding its weights causes.

    For each layer, `bias[c] += mean(W x)[c] - mean(Wq x)[c]` over the data, where `x` is the float
    input of the layer. A bias that several layers share gets the mean of their corrections.

    Args:
        prepared: the model, which is changed in place, before `calibrate` or after it.
        data: the data, as for `calibrate`.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Returns:
        The number of layers that were corrected.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the weights are rounded already, or were changed by hand since `calibrate`.
        UsageError: batch norms are kept beside their layers.

    Source: Nagel et al. 2019, section 4.2, arXiv:1906.04721.
    """
    _demand_folded(prepared)
    layers = {
        node.name: node
        for node in prepared.graph.nodes
        if node.operation.accumulates is Accumulates.WEIGHTED
    }
    shifts = {name: torch.zeros(()) for name in layers}
    count = 0
    calibrated = prepared.standing.phase(prepared) is not Phase.PREPARED
    with torch.no_grad():
        errors = {name: _weight_error(prepared, node) for name, node in layers.items()}
        for inputs in batches_of(prepared, data, progress, "correcting biases"):
            count += len(inputs[0])
            for node, values in _values(prepared, inputs):
                if node.name in layers:
                    shift = _output_error(node, errors[node.name], values)
                    shifts[node.name] = shifts[node.name] + shift
        if not count:
            raise DataError("correcting biases needs at least one sample, but the data holds none")
        for node in _once(prepared, list(layers.values()), "bias"):
            bias = prepared.constants_of(node)["bias"]
            places = {node.name, *(other.name for other, _ in prepared.places_of(node, "bias"))}
            own = [shifts[name] / count for name in sorted(places & layers.keys())]
            prepared.set_constant(node.name, "bias", bias + torch.stack(own).mean(dim=0))
    if calibrated:
        fit_biases(prepared)
    return len(layers)


def _demand_folded(prepared: PreparedModel) -> None:
    if prepared.batch_norms:
        raise UsageError(
            f"{len(prepared.batch_norms)} layers have a batch norm beside their weights, which "
            "would undo the change; call fold_batch_norms(prepared) first"
        )


def _weight_error(prepared: PreparedModel, node: Node) -> Tensor:
    """Returns `W - Wq`; a quantizer that is not fitted is fitted as a copy."""
    weight, quantizer = prepared.constants_of(node)["weight"], prepared.weight_quantizer(node.name)
    if not quantizer.is_fitted:
        quantizer = copy.deepcopy(quantizer)
        quantizer.observe(weight)
        quantizer.fit()
    return weight - quantizer(weight)


def _output_error(node: Node, error: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Returns `sum over samples of the mean of (W - Wq) x`, [channels]."""
    constants = {"weight": error, "bias": error.new_zeros(len(error))}
    result = node.operation.compute(inputs, constants)
    channels = node.operation.channels_in(result.ndim)
    others = [axis for axis in range(1, result.ndim) if axis != channels]
    return (result.mean(dim=others) if others else result).sum(dim=0)


def rescalable(prepared: PreparedModel) -> list[Channel]:
    """Returns the norms and layers whose channel factors can move into the weights of all readers.

    Where the model uses a norm or a layer at several places, one factor must suit all of them.
    """
    nodes, users = prepared.graph.by_name, prepared.graph.users()
    found: list[Channel] = []
    for node in prepared.graph.nodes:
        if not node.operation.factor_role:
            continue
        if node.clamp is not None and (node.clamp.low, node.clamp.high) != (0.0, math.inf):
            continue
        readers = [nodes.get(name) for name in users[node.name]]
        if readers and all(reader is not None and _takes(reader, node) for reader in readers):
            place = Channel((node,), tuple(reader for reader in readers if reader is not None))
            found = _joined(prepared, found, place)
    return [place for place in found if _agrees(prepared, place)]


def _joined(prepared: PreparedModel, found: list[Channel], place: Channel) -> list[Channel]:
    """Returns the found places with one more, merged with those that share a constant with it."""
    own = _tensors(prepared, place).keys()
    others = [other for other in found if own.isdisjoint(_tensors(prepared, other).keys())]
    sharing = [other for other in found if other not in others] + [place]
    makers = tuple(maker for other in sharing for maker in other.makers)
    readers = tuple(reader for other in sharing for reader in other.readers)
    return [*others, Channel(makers, readers)]


def _tensors(
    prepared: PreparedModel, place: Channel
) -> dict[tuple[str, str], set[tuple[str, str, str]]]:
    """Returns the tensors that a factor would change, with their uses (constant, node, role).

    The keys are the side and the tensor. The factor changes the rows of the makers' weights and the
    columns of the readers' weights.
    """
    found: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
    for side, node, roles in (
        *(("rows", maker, (maker.operation.factor_role, "bias")) for maker in place.makers),
        *(("columns", reader, ("weight", "bias")) for reader in place.readers),
    ):
        for role in roles:
            if side == "rows" or role == "bias" or not prepared.has_own_factors(node):
                name = node.constants[role]
                uses = found.setdefault((side, prepared.graph.tensor_of(name)), set())
                uses.add((name, node.name, role))
    return found


def _agrees(prepared: PreparedModel, place: Channel) -> bool:
    """Tells whether one factor suits all uses of the constants of a place.

    All uses of the makers' constants must be makers of the place, and all uses of the readers'
    constants readers of it, each by the same view of the tensor. Readers with the same bias must
    have the same weight, because a shift adds `W z` to the bias.
    """
    biases = {(r.constants["bias"], r.constants["weight"]) for r in place.readers}
    if len({bias for bias, _ in biases}) < len(biases):
        return False
    nodes = prepared.graph.by_name
    for uses in _tensors(prepared, place).values():
        _, node, role = next(iter(uses))
        elsewhere = {(other.name, used) for other, used in prepared.places_of(nodes[node], role)}
        inside = {(name, used) for _, name, used in uses}
        if not elsewhere <= inside or len({name for name, _, _ in uses}) > 1:
            return False
    return True


def _takes(reader: Node, maker: Node) -> bool:
    """Tells whether the columns of a reader's weight correspond to the channels of a maker."""
    if isinstance(reader.operation, Linear):
        return not isinstance(maker.operation, Convolution)
    return (
        isinstance(reader.operation, Convolution)
        and isinstance(maker.operation, Convolution)
        and reader.operation.groups == 1
    )


def _column_ranges(prepared: PreparedModel, reader: Node) -> Tensor:
    """Returns the largest magnitude of the weights of each input channel, [inputs]."""
    weight = prepared.constants_of(reader)["weight"].abs()
    return weight.transpose(0, 1).flatten(1).amax(dim=1)


def rescale(prepared: PreparedModel, place: Channel, scale: Tensor) -> None:
    """Divides the makers' channels by `scale`, and multiplies the readers' columns by it."""
    role = place.maker.operation.factor_role
    for maker in _once(prepared, place.makers, role):
        weight = prepared.constants_of(maker)[role]
        rows = scale.reshape(-1, *(1,) * (weight.ndim - 1))
        prepared.set_constant(maker.name, role, weight / rows)
    for maker in _once(prepared, place.makers, "bias"):
        bias = prepared.constants_of(maker)["bias"]
        prepared.set_constant(maker.name, "bias", bias / scale)
    own = [reader for reader in place.readers if prepared.has_own_factors(reader)]
    shared = [reader for reader in place.readers if reader not in own]
    for reader in (*own, *_once(prepared, shared, "weight")):
        prepared.scale_columns(reader, scale)


def ranges_of(
    prepared: PreparedModel, data: Data, names: set[str], progress: Progress
) -> dict[str, Tensor]:
    """Returns, by edge, the largest magnitude of each channel of the last axis."""
    bounds = bounds_of(prepared, data, names, progress)
    return {name: torch.maximum(-low, high) for name, (low, high) in bounds.items()}


def bounds_of(
    prepared: PreparedModel, data: Data, names: set[str], progress: Progress
) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns, by edge, the smallest and the largest value of each channel of the last axis.

    Raises:
        DataError: there are no data, or they do not fit the model.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for inputs in batches_of(prepared, data, progress, "smoothing"):
            for node, value in prepared.graph.run(inputs, prepared.constants_of):
                if node.name in names:
                    rows = value.flatten(0, -2)
                    low, high = rows.amin(dim=0), rows.amax(dim=0)
                    before = found.get(node.name, (low, high))
                    found[node.name] = torch.minimum(before[0], low), torch.maximum(before[1], high)
    if len(found) < len(names):
        raise DataError("smoothing needs at least one sample, but the data holds none")
    return found


def _values(prepared: PreparedModel, inputs: Sequence[Tensor]):
    """Yields every node with its inputs, computed in float with the prepared model's weights."""
    values = dict(zip(prepared.graph.inputs, inputs, strict=True))
    for node in prepared.graph.nodes:
        operands = [values[name] for name in node.inputs]
        if not isinstance(node.operation, Input):
            values[node.name] = compute(node, operands, prepared.constants_of(node))
        yield node, operands

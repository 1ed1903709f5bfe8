"""Measures calibration data once, and decides every scale and zero point from it."""

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from photomask.chip.data import Data, InputForm, as_batch, length_of, read_batches
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Accumulates,
    Add,
    Concatenate,
    IntegerUse,
    Tokens,
)
from photomask.chip.prepared_layer import PreparedLayer
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PowerOfTwoFactors, Quantizer
from photomask.chip.standing import Effect, changes
from photomask.chip.sum_limits import choose_scales, update_sum_limits
from photomask.chip.units import accumulator_unit
from photomask.chip.zero_ranges import settle_zero_activations, settle_zero_weights
from photomask.errors import DataError, QuantizerError
from photomask.report import Progress, without_progress
from photomask.stages import stage

_LOG = logging.getLogger(__name__)

BATCH = 32
"""The number of samples that are computed at a time where the calibration data is one tensor."""
SCALE_SHARING = 2.0
"""Inputs of a concatenation take its scale where the two scales differ by at most this factor.

They then need no rescaling.
"""

SHIFTED = (Accumulates.CODES, Accumulates.WEIGHTED, Accumulates.PRODUCTS)
"""Accumulators that shift-only hardware rescales by a shift, unless the operation also divides."""
BIAS_BITS = 31
"""The bits of a bias before the zero point is folded into it, which adds a term of similar size."""


@changes(Effect.CALIBRATES)
@stage(__name__, "calibrate")
@float32_by_default()
def calibrate(
    prepared: PreparedModel, data: Data, *, progress: Progress = without_progress
) -> PreparedModel:
    """Measures data once and decides every scale and zero point.

    A repeated call starts anew, and forgets what the earlier call measured.

    Args:
        prepared: the prepared model, whose quantizers are fitted in place.
        data: samples at axis 0, or batches of them, in any form that `photomask.chip.data`
            describes: tensors, arrays, dictionaries, a `DataLoader`. Labels are ignored.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Returns:
        `prepared` itself, ready for `convert`. It prints as a table of the quantizers with their
        scales.

    Raises:
        DataError: there is no data, its shape or dtype is wrong, or the data or an activation holds
            NaN or infinity.
        OrderError: the weights were rounded for the scales of an earlier call.
        QuantizerError: a quantizer cannot fit the values that it observed.
        TargetError: a quantizer limits sums to an accumulator in which no weight fits.
    """
    for quantizer in prepared.used_quantizers().values():
        quantizer.forget_observations()
    count = 0
    with torch.no_grad():
        for inputs in batches_of(prepared, data, progress, "calibrating"):
            prepared.observe(inputs)
            count += len(inputs[0])
        if not count:
            raise DataError("calibration needs at least one sample, but the data holds none")
        for node in prepared.graph.nodes:
            if node.operation.decides_scale:
                _fit(prepared.activation_quantizer(node.name), node, "output")
            if "weight" in node.constants and (layer := prepared.layer(node)).is_first:
                layer.quantizer.observe(layer.measured_weight)
                _fit(layer.quantizer, node, "weight")
        settle_zero_activations(prepared)
        _share_scales(prepared)
        _share_factors(prepared)
        choose_scales(prepared)
        fit_biases(prepared)
    return prepared


@changes(Effect.ACCEPTS)
@float32_by_default()
def fit_biases(prepared: PreparedModel) -> None:
    """Adjusts the scales of weights after training, so that every bias fits its integer format.

    It gives weights that are 0 a usable scale, raises power-of-two scales of outputs that are finer
    than their accumulator, raises the scales of weights whose bias is larger by far, and limits
    weights whose sums have to fit an accumulator to what the biases leave of it. The
    functions `calibrate` and `train` do so themselves. Call it after a training loop of your own:
    it also accepts the weights that the loop has changed, which `convert` refuses otherwise.

    Raises:
        OrderError: the model is not calibrated.
    """
    with torch.no_grad():
        settle_zero_weights(prepared)
        _coarsen_to_accumulators(prepared)
        for layer in prepared.layers():
            make_room_for_bias(layer)
        update_sum_limits(prepared)


def batches_of(
    prepared: PreparedModel,
    data: Data,
    progress: Progress = without_progress,
    label: str = "reading data",
) -> Iterator[list[Tensor]]:
    """Yields checked batches of data with one tensor for each input, and ignores labels.

    Args:
        prepared: the model that the data is for; the batches are moved to its device.
        data: samples at axis 0, or batches, in any form that `photomask.chip.data` describes.
        progress: shows how many batches are done, where the number of batches is known.
        label: the name of the work that is done with the batches, for the progress bar.

    Raises:
        DataError: a shape or a dtype is wrong, or a value is NaN or infinite.
    """
    graph, forms = prepared.graph, input_forms(prepared.graph, prepared.device)
    what = "calibration data"
    count = _count_batches(forms, data, what)
    steps = iter(() if count is None else progress(range(count), label))
    for batch in read_batches(forms, data, what=what, size=BATCH):
        next(steps, None)  # Where the length is wrong, the bar ends early, but all data is read.
        for name, x in zip(graph.inputs, batch.inputs, strict=True):
            if not x.is_floating_point():
                _check_rows(graph, graph.by_name[name], x)
        yield [_laid_out(x) for x in batch.inputs]
    next(steps, None)


def _count_batches(forms: list[InputForm], data: Data, what: str) -> int | None:
    """Returns how many batches `batches_of` yields, or None where the number is unknown."""
    whole = as_batch(forms, data, what, inside=False)
    if whole is None:
        return length_of(data)
    counts = [x.shape[0] for x in whole.inputs if x.ndim]
    return math.ceil(counts[0] / BATCH) if counts else None


def input_forms(graph: FloatGraph, device: torch.device) -> list[InputForm]:
    """Returns the forms of a graph's inputs, in order, for data on the given device."""
    nodes = [graph.by_name[name] for name in graph.inputs]
    return [InputForm(n.name, n.shape[1:], isinstance(n.operation, Tokens), device) for n in nodes]


def _laid_out(x: Tensor) -> Tensor:
    """Returns images in memory format channels-last, with which CPU convolutions are faster."""
    if not x.is_floating_point():
        return x
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _coarsen_to_accumulators(prepared: PreparedModel) -> None:
    """Raises power-of-two scales of outputs to the unit of the accumulator, where they are finer.

    A finer scale holds no more information, and hardware that only shifts right cannot reach it. An
    example is a 16-bit output of few 8-bit products.
    """
    # A coarser input makes the next accumulator coarser, so this repeats until nothing changes.
    # Scales lie few powers of two apart, so 8 rounds are enough.
    for _ in range(8):
        coarsened = False
        for node in prepared.graph.nodes:
            step, quantizer = _accumulator_step(prepared, node), None
            if step is not None:
                quantizer = prepared.activation_quantizer(node.name)
            if step is None or quantizer is None or not quantizer.power_of_two:
                continue
            step = step.to(quantizer.scale)
            if bool(quantizer.scale < step) and not bool(quantizer.zero_point.any()):
                scale = step.reshape(quantizer.scale.shape)
                quantizer.set_parameters(quantizer.format, scale, quantizer.zero_point)
                coarsened = True
        if not coarsened:
            return


def _accumulator_step(prepared: PreparedModel, node: Node) -> Tensor | None:
    """Returns the coarsest unit of a node's accumulator; None where no shift can rescale it."""
    operation = node.operation
    if operation.divides or operation.accumulates not in SHIFTED:
        return None
    if operation.accumulates is Accumulates.WEIGHTED:
        return prepared.layer(node).unit.max()
    scales = [prepared.activation_quantizer(name).scale.min() for name in node.inputs]
    if operation.accumulates is Accumulates.PRODUCTS:
        return accumulator_unit(operation, scales)
    return torch.stack([accumulator_unit(operation, [scale]) for scale in scales]).max()


def make_room_for_bias(layer: PreparedLayer, headroom: float = 1.0) -> None:
    """Raises the weight scales of channels whose bias is larger than their products by far.

    A bias is added in units of `input scale * weight scale`. Where that unit is so small that the
    bias would need more than `BIAS_BITS` bits (a dead channel, a batch norm without variance), the
    sum of products is far smaller than the bias, and a coarser weight scale loses nothing.

    Args:
        layer: the layer, whose weight quantizer is changed in place.
        headroom: the factor by which the input's scale may still shrink afterwards.
    """
    quantizer = layer.quantizer
    unit = layer.unit
    bias = layer.bias.abs().double()
    if unit.ndim == 0:
        bias = bias.max()
    excess = bias * headroom / unit / 2.0 ** (BIAS_BITS - 1)
    if bool((excess <= 1).all()):
        return
    factor = torch.exp2(excess.clamp(min=1).log2().ceil()).float()
    if quantizer.channel_scale is not None:
        quantizer.channel_scale = quantizer.channel_scale * factor
        factor = factor[:, None]
    quantizer.set_parameters(quantizer.format, quantizer.scale * factor, quantizer.zero_point)


def _fit(quantizer: Quantizer, node: Node, what: str) -> None:
    try:
        quantizer.fit()
    except QuantizerError as error:
        raise QuantizerError(f"{what} of {node.name!r} ({node.source}): {error}") from error
    if _LOG.isEnabledFor(logging.DEBUG):
        least, most = quantizer.scale.min().item(), quantizer.scale.max().item()
        _LOG.debug("%s of %s: scales from %.4g to %.4g", what, node.name, least, most)


def _check_rows(graph: FloatGraph, node: Node, x: Tensor) -> None:
    """Refuses indices for which a table that the input selects from has no row."""
    for reader in graph.nodes:
        takes_rows = reader.operation.use_of_integers(0) is IntegerUse.ROWS
        if not takes_rows or _source(graph, reader) != node.name:
            continue
        rows = len(graph.constants_of(reader)["table"])
        if bool((x < 0).any()) or bool((x >= rows).any()):
            raise DataError(
                f"calibration data for {node.name!r} holds the indices {int(x.min())} to "
                f"{int(x.max())}, but the table of {reader.name!r} ({reader.source}) has the rows "
                f"0 to {rows - 1}"
            )


def _source(graph: FloatGraph, reader: Node) -> str:
    """Returns the input of the graph that holds the indices of an embedding.

    Only operations that move values can lie between the two.
    """
    nodes, name = graph.by_name, reader.inputs[0]
    while nodes[name].inputs:
        name = nodes[name].inputs[0]
    return name


def _share_scales(prepared: PreparedModel) -> None:
    """Gives a concatenation and its inputs one scale where their ranges are alike.

    It goes from the last concatenation backwards, so that chains of concatenations (DenseNet) end
    up with one scale.
    """
    graph = prepared.graph
    fixed = {prepared.scale_owner(name) for name in (*graph.inputs, *graph.outputs)}
    for node in reversed(graph.nodes):
        if not isinstance(node.operation, Concatenate):
            continue
        owners = {prepared.scale_owner(name) for name in node.inputs}
        if len(owners) == 1 and node.name not in fixed:
            owner = owners.pop()
            if _alike(prepared, node.name, owner):
                prepared.share_scale(node.name, owner)
            continue
        for owner in owners - fixed:
            if owner != node.name and _alike(prepared, owner, node.name):
                prepared.share_scale(owner, node.name)


def _share_factors(prepared: PreparedModel) -> None:
    """Fits common channel factors for edges that additions join, where quantizers share them."""
    groups: dict[str, set[str]] = {}
    for node in prepared.graph.nodes:
        if isinstance(node.operation, Add):
            owners = {prepared.scale_owner(name) for name in (node.name, *node.inputs)}
            joined = owners.union(*(groups.get(name, set()) for name in owners))
            groups.update(dict.fromkeys(joined, joined))
    for group in {id(group): group for group in groups.values()}.values():
        found = [prepared.activation_quantizer(name) for name in sorted(group)]
        factored = [q for q in found if isinstance(q, PowerOfTwoFactors) and q.is_shared]
        for quantizer in factored:
            quantizer.fit_shared(factored)


def _alike(prepared: PreparedModel, edge: str, owner: str) -> bool:
    """Tells whether an edge may take the scale of another.

    The two need the same kind of quantizer and format, the other range must cover the edge's own,
    and the other scale must be at most `SCALE_SHARING` times as large.
    """
    small, large = prepared.activation_quantizer(edge), prepared.activation_quantizer(owner)
    if type(small) is not type(large) or small.format != large.format or small.scale.ndim:
        return False
    (low, high), (owner_low, owner_high) = real_range(small), real_range(large)
    step, owner_step = float(small.scale), float(large.scale)
    covers = owner_low <= low + owner_step and high - owner_step <= owner_high
    return covers and owner_step <= SCALE_SHARING * step


def real_range(quantizer: Quantizer) -> tuple[float, float]:
    """Returns the smallest and the largest real value that a per-tensor quantizer represents."""
    codes, zero = quantizer.codes, int(quantizer.zero_point)
    return (codes.low - zero) * float(quantizer.scale), (codes.high - zero) * float(quantizer.scale)

"""GPTQ: weights are rounded one input at a time, and later ones make up for the error."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Input
from photomask.chip.preparation import PreparedModel
from photomask.chip.quantized_computation import compute_quantized
from photomask.chip.quantizers import Quantizer
from photomask.chip.standing import Effect, changes
from photomask.chip.weight_rounding.products import (
    as_matrices,
    is_product,
    output_error,
    second_moments,
)
from photomask.documents import Document
from photomask.errors import DataError, QuantizerError, UsageError
from photomask.report import Progress, Shown, Table, without_progress
from photomask.stages import stage

BLOCK = 128
"""Inputs whose errors are spread at once over all later ones."""


class LayerRounding(Document):
    """What rounding one layer's weights takes from its output: `sum |(W - Wq) x|**2`."""

    layer: str
    nearest: float
    """With each weight rounded to its nearest code."""
    compensated: float
    """With the codes that it has now; never more."""


class RoundingReport(Shown, Document):
    """What `compensate_rounding` did."""

    layers: tuple[LayerRounding, ...]

    def shown(self) -> Table:
        """Returns a row for each layer."""
        rows = [("layer", "nearest", "compensated", "ratio")]
        for layer in self.layers:
            ratio = layer.compensated / layer.nearest if layer.nearest else 1.0
            rows.append(
                (layer.layer, f"{layer.nearest:.4g}", f"{layer.compensated:.4g}", f"{ratio:.3f}")
            )
        return Table("squared error of outputs by rounded weights", rows)


@changes(Effect.ROUNDS)
@stage(__name__, "compensate rounding")
@float32_by_default()
def compensate_rounding(
    prepared: PreparedModel,
    data: Data,
    *,
    damping: float = 0.01,
    sort: bool = True,
    progress: Progress = without_progress,
) -> RoundingReport:
    """Rounds the weights of all layers so that their errors cancel on the data.

    For each layer, with `H = sum x x'` over its quantized inputs, the inputs `j` are handled one
    after the other. Their weights are rounded to the quantizer's grid, and the error is taken out
    of all weights that are still to come:

        w[k] -= (w[j] - q(w[j])) / U[j, j] * U[j, k]   for k > j,   U' U = H**-1, U upper triangular

    A convolution is a product with patches. Layers are handled in the order of computation, each
    with inputs as the rounded layers before it make them. A weight that several layers share is
    rounded once, for the inputs of all of them; one that is a table or a transposed weight as well
    is left as it is. Greedy as it is, the method may lose to
    plain rounding; an output channel for which it does keeps the plain one.

    Afterwards the weights lie on the grid, so `convert` takes the codes as they are. Do not
    calibrate again: another scale is another grid.

    Args:
        prepared: calibrated; its weights are changed in place.
        data: as for `calibrate`; a few hundred samples, more than inputs of the largest layer.
        damping: added to the diagonal of `H`, as a share of its mean.
        sort: handle inputs with the largest `H[j, j]` first (GPTQ's activation order).
        progress: shows how many operations are done; `photomask.report.show_progress` draws a bar.

    Raises:
        DataError: no data, or it does not fit the model.
        QuantizerError: not calibrated, or a weight quantizer that is not uniform.
        UsageError: damping is not positive.

    Source: GPTQ, Frantar et al. 2023, algorithm 1, arXiv:2210.17323. There, scales of groups are
    found on the way; here, all scales are those of `calibrate`.
    """
    if not damping > 0:
        raise UsageError(f"damping must be positive, found {damping}")
    batches = list(batches_of(prepared, data))
    if not batches:
        raise DataError("compensating roundings needs at least one sample, got none")
    reports = []
    with torch.no_grad():
        elsewhere = _moments_elsewhere(prepared, batches)
        for node, inputs in _walk(prepared, batches, progress):
            if is_product(node) and prepared.can_round(node) and _is_first(prepared, node):
                moments = elsewhere.get(node.name, torch.zeros((), dtype=torch.float64))
                moments = moments + _moments(prepared, node, inputs)
                reports.append(_round_layer(prepared, node, moments, damping, sort))
    return RoundingReport(layers=tuple(reports))


def _walk(
    prepared: PreparedModel,
    batches: Sequence[Sequence[Tensor]],
    progress: Progress = without_progress,
) -> Iterator[tuple[Node, list[Tensor]]]:
    """Yields every node with the first operand of all batches, before it is computed.

    Values are those of the quantized model; what the caller changes counts from then on.
    """
    graph = prepared.graph
    values = {
        name: [inputs[position] for inputs in batches] for position, name in enumerate(graph.inputs)
    }
    remaining = {name: len(readers) for name, readers in graph.users().items()}
    for node in progress(graph.nodes, "rounding weights"):
        operands = [values[name] for name in node.inputs]
        yield node, operands[0] if operands else []
        if isinstance(node.operation, Input):
            results = values[node.name]
        else:
            constants = prepared.quantized_constants_of(node)
            results = [
                compute_quantized(node, [operand[at] for operand in operands], constants)
                for at in range(len(batches))
            ]
        values[node.name] = [prepared.settle(node, result) for result in results]
        for name in node.inputs:
            remaining[name] -= 1
            if not remaining[name]:
                values.pop(name, None)


def _is_first(prepared: PreparedModel, node: Node) -> bool:
    return prepared.weight_owner(node.name) == node.name


def _moments(prepared: PreparedModel, node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Returns `sum x x'` of what a layer reads."""
    kernel = prepared.constants_of(node)["weight"].shape[2:]
    moments = torch.zeros((), dtype=torch.float64)
    for x in inputs:
        moments = moments + second_moments(node, x, kernel)
    return moments


def _moments_elsewhere(
    prepared: PreparedModel, batches: Sequence[Sequence[Tensor]]
) -> dict[str, Tensor]:
    """Returns, by the first layer that has a weight, the moments at all later ones.

    There the inputs are those before anything is compensated.
    """
    found: dict[str, Tensor] = {}
    later = [
        node.name
        for node in prepared.graph.nodes
        if is_product(node) and prepared.can_round(node) and not _is_first(prepared, node)
    ]
    if later:
        for node, inputs in _walk(prepared, batches):
            if node.name in later:
                owner = prepared.weight_owner(node.name)
                found[owner] = found.get(owner, 0) + _moments(prepared, node, inputs)
    return found


def _round_layer(
    prepared: PreparedModel, node: Node, moments: Tensor, damping: float, sort: bool
) -> LayerRounding:
    weight, quantizer = prepared.constants_of(node)["weight"], prepared.weight_quantizer(node.name)
    _check_uniform(quantizer, node)
    matrices = as_matrices(node, weight).double()
    scale = as_matrices(node, quantizer.scale_for(weight).expand_as(weight)).double()
    zero = as_matrices(node, quantizer.zero_point_for(weight).expand_as(weight)).double()
    nearest = as_matrices(node, quantizer.quantize(weight)).double()
    grid = (scale, zero, quantizer.codes.low, quantizer.codes.high)
    codes, before, after = best_codes(matrices, nearest, moments, grid, damping=damping, sort=sort)
    codes = codes.reshape(weight.shape)
    rounded = quantizer.dequantize(codes.to(weight.dtype))
    if not torch.equal(quantizer.quantize(rounded).double(), codes):
        raise QuantizerError(
            f"weight of {node.name!r}: {type(quantizer).__name__} gives its own values other codes"
        )
    prepared.set_constant(node.name, "weight", rounded)
    return LayerRounding(
        layer=node.name,
        nearest=float(before.sum()),
        compensated=float(after.sum()),
    )


def best_codes(
    weight: Tensor,
    nearest: Tensor,
    moments: Tensor,
    grid: tuple[Tensor, Tensor, int, int],
    *,
    damping: float,
    sort: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns codes, and the squared error of each output with the nearest codes and with these.

    Args:
        weight: `[groups, outputs, inputs]`, float64.
        nearest: its codes when each is rounded alone.
        moments: `sum x x'`, `[groups, inputs, inputs]`.
        grid: scale and zero point of each weight, lowest and highest code.
        damping: as for `compensate_rounding`.
        sort: likewise.
    """
    scale, zero, _, _ = grid
    codes = compensated_codes(weight, moments, grid, damping=damping, sort=sort)
    before = output_error(weight - (nearest - zero) * scale, moments)
    after = output_error(weight - (codes - zero) * scale, moments)
    better = after < before
    return (
        torch.where(better[..., None], codes, nearest),
        before,
        torch.where(better, after, before),
    )


def compensated_codes(
    weight: Tensor,
    moments: Tensor,
    grid: tuple[Tensor, Tensor, int, int],
    *,
    damping: float,
    sort: bool,
) -> Tensor:
    """Returns the codes that GPTQ gives to weights.

    Args:
        weight: `[groups, outputs, inputs]`, float64.
        moments: `sum x x'`, `[groups, inputs, inputs]`.
        grid: scale and zero point of each weight, lowest and highest code.
        damping: share of the mean of the diagonal that is added to it.
        sort: handle inputs with the largest diagonal first.
    """
    scale, zero, low, high = grid
    groups, outputs, size = weight.shape
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    order = torch.arange(size, device=weight.device).expand(groups, size)
    if sort:
        order = diagonal.argsort(dim=-1, descending=True, stable=True)
    along = order[:, None, :].expand(groups, outputs, size)
    weight, scale, zero = (part.gather(2, along).clone() for part in (weight, scale, zero))
    upper = _inverse_factor(moments, diagonal, order, damping)
    codes = torch.empty_like(weight)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = weight.new_zeros(groups, outputs, stop - start)
        for j in range(start, stop):
            code = (weight[:, :, j] / scale[:, :, j]).round() + zero[:, :, j]
            codes[:, :, j] = code.clamp(low, high)
            value = (codes[:, :, j] - zero[:, :, j]) * scale[:, :, j]
            error = (weight[:, :, j] - value) / upper[:, j, j, None]
            weight[:, :, j + 1 : stop] -= error[..., None] * upper[:, j, None, j + 1 : stop]
            errors[:, :, j - start] = error
        weight[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return torch.empty_like(codes).scatter_(2, along, codes)


def _inverse_factor(moments: Tensor, diagonal: Tensor, order: Tensor, damping: float) -> Tensor:
    """Returns the upper triangular `U` with `U' U = H**-1`, inputs in the order given.

    Inputs that are always 0 say nothing; a 1 in their place keeps them out of the others' way.
    """
    mean = diagonal.mean(dim=-1, keepdim=True)
    raised = diagonal + damping * torch.where(mean > 0, mean, 1.0)
    size = moments.shape[-1]
    damped = moments - torch.diag_embed(diagonal) + torch.diag_embed(raised)
    damped = damped.gather(1, order[:, :, None].expand(-1, size, size))
    damped = damped.gather(2, order[:, None, :].expand(-1, size, size))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def _check_uniform(quantizer: Quantizer, node: Node) -> None:
    """Refuses codes that are not `clamp(round(w / scale) + zero_point)`."""
    kind = type(quantizer)
    plain = kind.quantize is Quantizer.quantize and kind.dequantize is Quantizer.dequantize
    if not plain or quantizer.soft_training:
        raise QuantizerError(
            f"weight of {node.name!r}: {kind.__name__} has a rounding of its own; compensating "
            "needs a uniform grid, such as that of Quantizer"
        )
    quantizer.codes  # noqa: B018 - raises where the model was not calibrated

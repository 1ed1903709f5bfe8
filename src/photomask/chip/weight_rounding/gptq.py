"""Rounds weights as GPTQ does: input by input, with the error compensated by later inputs."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Input
from photomask.chip.prepared_model import PreparedModel
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
"""The number of inputs whose errors are propagated to all later inputs at once."""


class LayerRounding(Document):
    """The squared error `sum |(W - Wq) x|**2` of one layer's output by rounded weights."""

    layer: str
    nearest: float
    """The error with each weight rounded to its nearest code."""
    compensated: float
    """The error with the chosen codes, which is never larger."""


class RoundingReport(Shown, Document):
    """The report of `compensate_rounding`."""

    layers: tuple[LayerRounding, ...]

    def shown(self) -> Table:
        """Returns a table with a row for each layer."""
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

    For each layer, with `H = sum x x'` over its quantized inputs, the inputs `j` are processed one
    after the other. The weights of input `j` are rounded to the quantizer's grid, and the error is
    subtracted from the weights that are not yet rounded:

        w[k] -= (w[j] - q(w[j])) / U[j, j] * U[j, k]   for k > j,   U' U = H**-1, U upper triangular

    A convolution is treated as a product with patches. Layers are processed in the order of
    computation, each with the inputs that the rounded layers before it compute. A weight that
    several layers share is rounded once, for the inputs of all of them. A weight that is also a
    table or a transposed weight is left unchanged. The method is greedy and can be worse than
    rounding to nearest; an output channel for which it is keeps the nearest codes.

    Afterwards the weights lie on the grid, so `convert` finds exactly these codes. Do not calibrate
    again, because another scale means another grid.

    Args:
        prepared: the calibrated model, whose weights are changed in place.
        data: the data, as for `calibrate`. A few hundred samples are enough; they should give more
            rows than the largest layer has inputs.
        damping: the share of the mean of `H`'s diagonal that is added to the diagonal.
        sort: True processes the inputs with the largest `H[j, j]` first (GPTQ's activation order).
        progress: shows how many operations are done; `photomask.report.show_progress` draws a bar.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the model is not calibrated, or its weights are rounded already.
        QuantizerError: the quantizer of a weight is not uniform.
        UsageError: `damping` is not positive.

    Source: GPTQ, Frantar et al. 2023, algorithm 1, arXiv:2210.17323. The paper chooses the scales
    of groups while it rounds; here all scales are those of `calibrate`.
    """
    if not damping > 0:
        raise UsageError(f"damping must be above 0, found {damping}")
    batches = list(batches_of(prepared, data))
    if not batches:
        raise DataError("compensating roundings needs at least one sample, but there is none")
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
    """Yields every node with its first input for all batches, before the node is computed.

    The values are those of the quantized model. Where the caller changes the yielded node's weight,
    the node is computed with the new weight.
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
    """Returns `sum x x'` over the inputs of a layer."""
    kernel = prepared.constants_of(node)["weight"].shape[2:]
    moments = torch.zeros((), dtype=torch.float64)
    for x in inputs:
        moments = moments + second_moments(node, x, kernel)
    return moments


def _moments_elsewhere(
    prepared: PreparedModel, batches: Sequence[Sequence[Tensor]]
) -> dict[str, Tensor]:
    """Returns, by the first layer with a shared weight, the moments of all later such layers.

    The inputs of the later layers are those before any weight is compensated.
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
    mask = prepared.mask_of(node)
    kept = as_matrices(node, torch.ones_like(weight, dtype=torch.bool) if mask is None else mask)
    codes, before, after = best_codes(
        matrices, nearest, moments, grid, kept, damping=damping, sort=sort
    )
    codes = codes.reshape(weight.shape)
    rounded = quantizer.dequantize(codes.to(weight.dtype))
    if not torch.equal(quantizer.quantize(rounded).double(), codes):
        raise QuantizerError(
            f"weight of {node.name!r}: {type(quantizer).__name__} gives the values of its codes "
            "other codes; check_quantizer says which law it breaks"
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
    kept: Tensor,
    *,
    damping: float,
    sort: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns codes, and the squared error of each output with the nearest codes and with these.

    Args:
        weight: the weight, `[groups, outputs, inputs]`, float64.
        nearest: the nearest codes of the weight.
        moments: `sum x x'`, `[groups, inputs, inputs]`.
        grid: the scale and the zero point of each weight, the lowest and the highest code.
        kept: bool, False where a weight is pruned and keeps the code of 0.
        damping: the damping, as for `compensate_rounding`.
        sort: the order of the inputs, as for `compensate_rounding`.
    """
    scale, zero, _, _ = grid
    codes = compensated_codes(weight, moments, grid, kept, damping=damping, sort=sort)
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
    kept: Tensor,
    *,
    damping: float,
    sort: bool,
) -> Tensor:
    """Returns the codes that GPTQ gives to weights.

    Args:
        weight: the weight, `[groups, outputs, inputs]`, float64.
        moments: `sum x x'`, `[groups, inputs, inputs]`.
        grid: the scale and the zero point of each weight, the lowest and the highest code.
        kept: bool, False where a weight is pruned and keeps the code of 0.
        damping: the share of the mean of the diagonal that is added to the diagonal.
        sort: True processes the inputs with the largest diagonal elements first.
    """
    scale, zero, low, high = grid
    groups, outputs, size = weight.shape
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    order = torch.arange(size, device=weight.device).expand(groups, size)
    if sort:
        order = diagonal.argsort(dim=-1, descending=True, stable=True)
    along = order[:, None, :].expand(groups, outputs, size)
    weight, scale, zero, kept = (
        part.gather(2, along).clone() for part in (weight, scale, zero, kept)
    )
    upper = _inverse_factor(moments, diagonal, order, damping)
    codes = torch.empty_like(weight)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = weight.new_zeros(groups, outputs, stop - start)
        for j in range(start, stop):
            # The error of a pruned weight is what the others have moved to it.
            wanted = torch.where(kept[:, :, j], weight[:, :, j], 0)
            code = (wanted / scale[:, :, j]).round() + zero[:, :, j]
            codes[:, :, j] = code.clamp(low, high)
            value = (codes[:, :, j] - zero[:, :, j]) * scale[:, :, j]
            error = (weight[:, :, j] - value) / upper[:, j, j, None]
            weight[:, :, j + 1 : stop] -= error[..., None] * upper[:, j, None, j + 1 : stop]
            errors[:, :, j - start] = error
        weight[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return torch.empty_like(codes).scatter_(2, along, codes)


def _inverse_factor(moments: Tensor, diagonal: Tensor, order: Tensor, damping: float) -> Tensor:
    """Returns the upper triangular `U` with `U' U = H**-1`, with the inputs in the given order.

    Where all inputs are 0, the damping is relative to 1, so that the matrix can be inverted.
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
    """Refuses a quantizer whose codes are not `clamp(round(w / scale) + zero_point)`."""
    kind = type(quantizer)
    plain = kind.quantize is Quantizer.quantize and kind.dequantize is Quantizer.dequantize
    if not plain or quantizer.soft_training:
        raise QuantizerError(
            f"weight of {node.name!r}: {kind.__name__} has a rounding of its own, but compensating "
            "needs a uniform grid; use Quantizer for this weight"
        )
    quantizer.codes  # noqa: B018 - the property raises where the model was not calibrated

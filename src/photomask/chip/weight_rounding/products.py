"""Treats layers as products of matrices, and computes the second moments of their inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.graph import Node
from photomask.chip.graph.operations import Accumulates, Convolution, Linear
from photomask.errors import DataError, OperatorError

SAMPLES = 8
"""The number of samples whose patches are made at a time."""


def is_product(node: Node) -> bool:
    """Tells whether a node multiplies its input by a weight."""
    return node.operation.accumulates is Accumulates.WEIGHTED


def groups_of(node: Node) -> int:
    """Returns the number of matrices of a layer's weight, which is the groups of a convolution."""
    return node.operation.groups if isinstance(node.operation, Convolution) else 1


def as_matrices(node: Node, weight: Tensor) -> Tensor:
    """Returns a tensor in the shape of a weight as `[groups, outputs, inputs * taps]`."""
    groups = groups_of(node)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def second_moments(node: Node, x: Tensor, taps: torch.Size) -> Tensor:
    """Returns `sum x x'` over all rows that a layer multiplies by its weight, in float64.

    The rows of a convolution are patches: for each output position, the inputs under the kernel,
    with the channels of one group.

    Args:
        node: a convolution or a linear layer.
        x: the input of the layer.
        taps: the shape of the kernel, which is empty for a linear layer.

    Returns:
        The moments, `[groups, inputs * taps, inputs * taps]`.

    Raises:
        DataError: the input holds NaN or infinity.
    """
    total = torch.zeros(())
    for part in x.split(SAMPLES):
        rows = _rows(node, part.detach(), taps).double()
        total = total + rows.transpose(1, 2) @ rows
    if not bool(torch.isfinite(total).all()):
        raise DataError(
            f"the input of {node.name!r} ({node.source}) holds NaN or infinity; remove the samples "
            "that cause it"
        )
    return total


def output_error(difference: Tensor, moments: Tensor) -> Tensor:
    """Returns the squared error of each output, summed over all rows: `d' (sum x x') d`.

    Args:
        difference: the difference of two weights, `[groups, outputs, inputs * taps]`.
        moments: the moments that `second_moments` returns.

    Returns:
        The errors, `[groups, outputs]`.
    """
    difference = difference.double()
    return ((difference @ moments) * difference).sum(dim=-1).clamp(min=0)


def _rows(node: Node, x: Tensor, taps: torch.Size) -> Tensor:
    """Returns the rows that a layer multiplies by its weight, `[groups, rows, inputs * taps]`."""
    operation = node.operation
    if isinstance(operation, Linear):
        return x.reshape(1, -1, x.shape[-1])
    if not isinstance(operation, Convolution):
        raise OperatorError(
            f"{node.name!r} ({node.source}) must be a convolution or a linear layer, found "
            f"{operation.kind}, for which there is no rule of what its weight multiplies"
        )
    x = F.pad(x, [amount for pair in reversed(operation.padding) for amount in pair])
    stride = operation.stride
    dilation = operation.dilation
    kernel = tuple(taps)
    if len(kernel) == 1:
        x = x[:, :, None]
        stride = (1, *stride)
        dilation = (1, *dilation)
        kernel = (1, *kernel)
    patches = F.unfold(x, kernel, dilation=dilation, stride=stride)
    count, _, positions = patches.shape
    patches = patches.reshape(count, operation.groups, -1, positions)
    return patches.permute(1, 0, 3, 2).reshape(operation.groups, count * positions, -1)

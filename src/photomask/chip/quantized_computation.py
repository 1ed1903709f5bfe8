"""Computes operations on quantized inputs as the integer operators do, with gradients.

For most operations the float operation itself does that, because sums of products of codes are
exact. Softmax and norms round intermediate results, as their integer operators do.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import clamped
from photomask.chip.graph.operations import Normalize, Softmax
from photomask.chip.operators.normalize import real_normal
from photomask.chip.operators.softmax import real_shares
from photomask.chip.quantizers.straight_through import stand_in
from photomask.chip.target import Target


def compute_quantized(
    node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Tensor]
) -> Tensor:
    """Returns a node's output for quantized inputs; the output is not yet quantized itself.

    Args:
        node: the node; a clamp that is fused into it is applied too.
        inputs: the quantized inputs, which are multiples of their scales.
        constants: the constant tensors by role.
    """
    operation = node.operation
    if isinstance(operation, Softmax):
        return clamped(node, real_shares(inputs[0], operation.hidden(inputs, constants)))
    return clamped(node, operation.compute(inputs, constants))


def compute_norm(
    node: Node,
    operation: Normalize,
    x: Tensor,
    step: Tensor,
    constants: Mapping[str, Tensor],
    target: Target,
) -> Tensor:
    """Returns a norm as a target's integers compute it, with the gradient of the float norm.

    Args:
        node: the node; a clamp that is fused into it is applied too.
        operation: the operation of the node.
        x: the quantized input, which is a multiple of `step`.
        step: the smallest scale of the input, [].
        constants: the tensors `gain` and `bias`.
        target: the target; the width of its accumulator limits the intermediate results.
    """
    normal = real_normal(x.detach(), step, operation.epsilon, operation.centred, target)
    value = clamped(node, normal * constants["gain"] + constants["bias"])
    return stand_in(value.detach().to(x.dtype), compute_quantized(node, [x], constants))

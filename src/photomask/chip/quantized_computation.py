"""What integers compute of quantized inputs, as real numbers with gradients.

For most operations that is the float operation itself: sums of products of codes are exact. Softmax
and norms round on the way, as their integer operators do.
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
    """Computes one node as integers do, of quantized inputs; its result is not yet quantized.

    Args:
        node: its fused clamp is included.
        inputs: multiples of their scales.
        constants: by role.
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
    """Computes a norm by the integers of a target; the gradient is that of the float norm.

    Args:
        node: its fused clamp is included.
        operation: of the node.
        x: multiples of `step`.
        step: the smallest scale of the input, [].
        constants: `gain` and `bias`.
        target: whose accumulator says how many bits there are.
    """
    normal = real_normal(x.detach(), step, operation.epsilon, operation.centred, target)
    value = clamped(node, normal * constants["gain"] + constants["bias"])
    return stand_in(value.detach().to(x.dtype), compute_quantized(node, [x], constants))

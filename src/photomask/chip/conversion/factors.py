"""Edges whose channels have power-of-two factors: norms read them, all others read them widened."""

from dataclasses import replace

import numpy as np

from photomask.chip.conversion.builder import Conversion, Scale
from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.errors import TargetError

WIDE = IntFormat(bits=16, signed=True)
"""What codes with factors are shifted into; `PowerOfTwoFactors` leaves room for it."""


def with_one_scale(conversion: Conversion, node: Node) -> Node:
    """Returns a node that reads edges with factors as edges of one scale.

    A power of two cannot be factored out of a sum over channels, nor may two edges of different
    factors be added or joined, so the codes are shifted left by it, exactly.

    Raises:
        TargetError: the node's results have factors that it cannot give them.
    """
    inputs = tuple(_of_one_scale(conversion, name, node) for name in node.inputs)
    if node.operation.keeps_scale and inputs and inputs[0] in conversion.widened:
        conversion.widened[node.name] = conversion.widened[inputs[0]]
    owns = conversion.prepared.scale_owner(node.name) == node.name
    integer = isinstance(node.operation, float_operations.Tokens)
    plain = not owns or integer or node.operation.channel_axis == -1
    if not plain and conversion.scale_of(node.name).factors:
        raise TargetError(
            f"{node.name!r} ({node.source}): results of {node.operation.kind} have no "
            "power-of-two factors for each element of their last axis; give them one scale "
            "(the pattern 'norm_inputs' matches what may have factors)"
        )
    return replace(node, inputs=inputs)


def has_common_factors(conversion: Conversion, node: Node) -> bool:
    """Tells whether a node's inputs and its output have the same factors."""
    found = {conversion.scale_of(name).factors for name in (node.name, *node.inputs)}
    return len(found) == 1 and found != {()}


def _of_one_scale(conversion: Conversion, name: str, reader: Node) -> str:
    """Returns an edge of one scale with the values of `name`, which may be itself."""
    if conversion.prepared.scale_owner(name) in conversion.rows or name in conversion.widened:
        return name
    scale = conversion.scale_of(name)
    if not scale.factors:
        return name
    wide, target = f"{name}.wide", conversion.target
    if wide in conversion.edges:
        return wide
    if WIDE.bits not in target.activation_bits or target.power_of_two_only:
        raise TargetError(
            f"{reader.name!r} ({reader.source}): reads {name!r}, whose channels have power-of-two "
            f"factors along the last axis, and is no norm; target {target.name!r} cannot shift "
            f"such codes left into {WIDE.bits} bits. Give {name!r} one scale"
        )
    if scale.format.bits + max(scale.factors) > WIDE.bits:
        raise TargetError(
            f"{reader.name!r} ({reader.source}): reads {name!r}, {scale.format.bits} bits with "
            f"factors up to 2**{max(scale.factors)}, which only norms read, and sums whose edges "
            f"all have them; shifted left they would not fit {WIDE.bits} bits. Give {name!r} one "
            "scale, or a smaller largest_factor"
        )
    plain = Scale(scale.scale, 0, WIDE)
    node = conversion.prepared.graph.by_name[name]
    conversion.widened[wide] = plain
    return conversion.requantize(node, name, np.exp2(scale.factors), plain, name=wide)

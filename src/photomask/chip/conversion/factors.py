"""Widens edges whose channels have power-of-two factors for readers that need one scale.

Norms read the codes with their factors. Other operations read codes that are shifted left.
"""

from dataclasses import replace

import numpy as np

from photomask.chip.conversion.builder import Conversion, Scale
from photomask.chip.formats import IntFormat
from photomask.chip.graph import Node
from photomask.chip.graph import operations as float_operations
from photomask.errors import TargetError

WIDE = IntFormat(bits=16, signed=True)
"""The format of the shifted codes; `PowerOfTwoFactors` leaves room for it."""


def with_one_scale(conversion: Conversion, node: Node) -> Node:
    """Returns a node that reads the widened form, with one scale, of edges with channel factors.

    A factor per channel cannot be taken out of a sum over channels, and edges with different
    factors cannot be added or concatenated. So the codes are shifted left by their factors, which
    is exact.

    Raises:
        TargetError: the node cannot compute an output with channel factors.
    """
    inputs = tuple(_of_one_scale(conversion, name, node) for name in node.inputs)
    if node.operation.keeps_scale and inputs and inputs[0] in conversion.widened:
        conversion.widened[node.name] = conversion.widened[inputs[0]]
    owns = conversion.prepared.scale_owner(node.name) == node.name
    integer = isinstance(node.operation, float_operations.Tokens)
    plain = not owns or integer or node.operation.channel_axis == -1
    if not plain and conversion.scale_of(node.name).factors:
        raise TargetError(
            f"{node.name!r} ({node.source}): the output of {node.operation.kind} cannot have "
            "power-of-two factors for the elements of its last axis; give it one scale (the "
            "pattern 'norm_inputs' matches the sites that may have factors)"
        )
    return replace(node, inputs=inputs)


def has_common_factors(conversion: Conversion, node: Node) -> bool:
    """Tells whether a node's inputs and its output have the same channel factors."""
    found = {conversion.scale_of(name).factors for name in (node.name, *node.inputs)}
    return len(found) == 1 and found != {()}


def _of_one_scale(conversion: Conversion, name: str, reader: Node) -> str:
    """Returns the name of an edge with one scale and the values of `name`, often `name` itself."""
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
            f"{reader.name!r} ({reader.source}) is no norm and reads {name!r}, whose channels have "
            f"power-of-two factors along the last axis; the target {target.name!r} cannot shift "
            f"such codes left into {WIDE.bits} bits. Give {name!r} one scale"
        )
    if scale.format.bits + max(scale.factors) > WIDE.bits:
        raise TargetError(
            f"{reader.name!r} ({reader.source}) reads {name!r}, which has {scale.format.bits} bits "
            f"and factors up to 2**{max(scale.factors)}. The shifted codes would not fit "
            f"{WIDE.bits} bits, so only norms can read them, and sums whose edges all have these "
            f"factors. Give {name!r} one scale, or a smaller largest_factor"
        )
    plain = Scale(scale.scale, 0, WIDE)
    node = conversion.prepared.graph.by_name[name]
    conversion.widened[wide] = plain
    return conversion.requantize(node, name, np.exp2(scale.factors), plain, name=wide)

"""Decides whether a traced graph's in-place operators may be treated as functional ones.

`torch.export` can rewrite them, but that takes longer than the export itself. Most networks use
only `relu_` on a fresh result that nothing else reads later.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from photomask.chip.graph.lowerings import registered


def reads_as_functional(graph: Graph) -> bool:
    """Tells whether every in-place call `f_(x)` can be replaced by `f(x)`.

    It can where `x` is the fresh result of an operator, no other reader aliases it, and no reader
    comes later.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    return all(_is_harmless(node, order) for node in graph.nodes if _written(node))


def _written(node: Node) -> bool:
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return target._schema.is_mutable


def _is_harmless(call: Node, order: dict[Node, int]) -> bool:
    target: Any = call.target
    operand = call.args[0] if call.args else None
    if not isinstance(operand, Node) or not target._schema.name.endswith("_"):
        return False
    if not (_is_fresh(operand) or _written(operand)):
        return False
    readers = [reader for reader in operand.users if reader is not call]
    only_once = [argument for argument in call.all_input_nodes if argument is operand]
    return len(only_once) == 1 and all(
        _is_fresh(reader) and order[reader] < order[call] for reader in readers
    )


def _is_fresh(node: Node) -> bool:
    """Tells whether a result is new memory; the result of an in-place operator is not."""
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    known = None if target._schema.is_mutable else registered(target)
    return known is not None and known.is_fresh

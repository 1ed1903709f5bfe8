"""Holds the table from float operations to the functions that convert them.

A file of converters registers its functions when it is imported, and `converters` imports every
such file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from photomask.chip.conversion.builder import Conversion
from photomask.chip.conversion.factors import with_one_scale
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Operation
from photomask.errors import UsageError

One = TypeVar("One", bound=Operation)


def never(conversion: Conversion, node: Node) -> bool:
    """Returns False, for operations that read no edges whose channels have factors."""
    return False


def always(conversion: Conversion, node: Node) -> bool:
    """Returns True, for operations that read edges whose channels have factors."""
    return True


@dataclass(frozen=True)
class Registered:
    """The converter of a float operation.

    Attributes:
        convert: the function that adds the integer steps of a node.
        reads_factors: a function that tells whether a node can read edges whose channels have
            power-of-two factors. A node that cannot gets widened edges with one scale.
    """

    convert: Callable[[Conversion, Node, Any], None]
    reads_factors: Callable[[Conversion, Node], bool]


CONVERTERS: dict[type[Operation], Registered] = {}
"""The converters by class of float operation."""


def converts(
    *operations: type[One], reads_factors: Callable[[Conversion, Node], bool] = never
) -> Callable[[Callable[[Conversion, Node, One], None]], Callable[[Conversion, Node, One], None]]:
    """Returns a decorator that registers a function as the converter of float operations.

    The function gets the conversion, the node and the operation of the node.

    Args:
        operations: the classes of the operations.
        reads_factors: tells whether a node can read edges with channel factors; see `Registered`.

    Raises:
        UsageError: an operation has a converter already.
    """

    def register(
        function: Callable[[Conversion, Node, One], None],
    ) -> Callable[[Conversion, Node, One], None]:
        for operation in operations:
            if operation in CONVERTERS:
                raise UsageError(
                    f"the float operation {operation.__name__} has two converters; remove one"
                )
            CONVERTERS[operation] = Registered(function, reads_factors)
        return function

    return register


def convert_node(conversion: Conversion, node: Node) -> None:
    """Adds the integer steps of a float node.

    Raises:
        TargetError: the target cannot hold what the steps need.
        UsageError: the operation has no converter.
    """
    found = CONVERTERS.get(type(node.operation))
    if found is None:
        raise UsageError(
            f"{node.name!r} ({node.source}): the float operation {type(node.operation).__name__} "
            "has no converter; register a function with `converts`"
        )
    if not found.reads_factors(conversion, node):
        node = with_one_scale(conversion, node)
    found.convert(conversion, node, node.operation)

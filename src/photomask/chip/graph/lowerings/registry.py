"""Holds the table of ATen operators with their lowering functions and their properties.

A file of lowerings registers its functions when it is imported, and the package imports every such
file. Properties of an ATen operator that other parts of the capture need are part of its
registration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from photomask.chip.graph.batch_axis import BatchAxis
from photomask.chip.graph.builder import Lowering
from photomask.errors import UsageError


@dataclass(frozen=True)
class Registered:
    """The lowering and the properties of an ATen operator.

    Attributes:
        lower: the function that lowers a call to float operations.
        batch: the axes at which the operator allows the batch.
        is_fresh: True if the result never shares memory with an operand, so that writing into the
            result changes nothing else.
        moves_masks: True if the operator only moves the elements of a mask, in each form of the
            mask.
    """

    lower: Lowering
    batch: BatchAxis = BatchAxis.OWN
    is_fresh: bool = False
    moves_masks: bool = False


LOWERINGS: dict[str, Registered] = {}
"""The lowerings by ATen name, with the overload where overloads differ, as in `mean.dim`."""


def lowers(
    *names: str,
    batch: BatchAxis = BatchAxis.OWN,
    is_fresh: bool = False,
    moves_masks: bool = False,
) -> Callable[[Lowering], Lowering]:
    """Returns a decorator that registers a function as the lowering of ATen operators.

    Args:
        names: the names of the operators, with or without the overload.
        batch: the axes at which these operators allow the batch.
        is_fresh: True if their results share no memory with operands.
        moves_masks: True if they only move the elements of a mask.

    Raises:
        UsageError: a name has a lowering already.
    """

    def register(function: Lowering) -> Lowering:
        for name in names:
            if name in LOWERINGS:
                raise UsageError(
                    f"the ATen operator {name!r} has two lowerings: "
                    f"{_place(LOWERINGS[name].lower)} and {_place(function)}; remove one of them"
                )
            LOWERINGS[name] = Registered(function, batch, is_fresh, moves_masks)
        return function

    return register


def registered(target: Any) -> Registered | None:
    """Returns the lowering of an `OpOverload` or None; in-place variants use the operator's own."""
    name = aten_name(target)
    return LOWERINGS.get(f"{name}.{target._overloadname}") or LOWERINGS.get(name)


def aten_name(target: Any) -> str:
    """Returns the name of an `OpOverload` without namespace, overload and in-place suffix."""
    name = target._schema.name.removeprefix("aten::")
    return name if name.endswith("__") else name.removesuffix("_")


def _place(function: Lowering) -> str:
    module = getattr(function, "__module__", "?").removeprefix("photomask.chip.graph.lowerings.")
    return f"{getattr(function, '__name__', repr(function))} in {module}"

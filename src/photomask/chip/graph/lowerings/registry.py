"""Which function lowers which ATen operator, and what is true of that operator itself.

There is one table. A file of lowerings registers its functions when it is imported, and the
package imports every file by name. Facts about an ATen operator that other parts of the capture
need stand beside its registration and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from photomask.chip.graph.batch_axis import BatchAxis
from photomask.chip.graph.builder import Lowering
from photomask.errors import UsageError


@dataclass(frozen=True)
class Registered:
    """How an ATen operator is lowered.

    Attributes:
        lower: makes float operations of a call.
        batch: what the operator demands of the batch's axis.
        is_fresh: the result never shares memory with an operand, so that writing into the result
            changes nothing else.
        moves_masks: the operator moves the elements of a mask and changes none, in whatever form
            the model holds the mask.
    """

    lower: Lowering
    batch: BatchAxis = BatchAxis.OWN
    is_fresh: bool = False
    moves_masks: bool = False


LOWERINGS: dict[str, Registered] = {}
"""By ATen name, with its overload where the overloads differ: `mean.dim`."""


def lowers(
    *names: str,
    batch: BatchAxis = BatchAxis.OWN,
    is_fresh: bool = False,
    moves_masks: bool = False,
) -> Callable[[Lowering], Lowering]:
    """Registers the decorated function for ATen operators; see `Registered` for the facts.

    Args:
        names: with or without the overload's name.
        batch: what these operators demand of the batch's axis.
        is_fresh: whether their results share no memory with operands.
        moves_masks: whether they move the elements of any mask.

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
    """Returns how an `OpOverload` is lowered, in-place variants as the operator itself."""
    name = aten_name(target)
    return LOWERINGS.get(f"{name}.{target._overloadname}") or LOWERINGS.get(name)


def aten_name(target: Any) -> str:
    """Returns the name of an `OpOverload` without namespace, overload and the mark of in-place."""
    name = target._schema.name.removeprefix("aten::")
    return name if name.endswith("__") else name.removesuffix("_")


def _place(function: Lowering) -> str:
    module = getattr(function, "__module__", "?").removeprefix("photomask.chip.graph.lowerings.")
    return f"{getattr(function, '__name__', repr(function))} in {module}"

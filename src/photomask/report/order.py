"""The order of arguments of every comparison with an original, which both pipelines share."""

import warnings
from typing import Any, TypeVar

from photomask.errors import UsageError

Made = TypeVar("Made")


def check_order(original: object, made: object, kind: type, call: str) -> None:
    """Refuses a comparison whose first two arguments are not the original and what was made of it.

    Args:
        original: the first argument.
        made: the second argument.
        kind: what the second argument must be and the first cannot be.
        call: the right call, for the message.

    Raises:
        UsageError: names the right order and what was found.
    """
    if isinstance(original, kind) or not isinstance(made, kind):
        raise UsageError(
            f"the original comes first and what was made from it second: {call}; found "
            f"{type(original).__name__} first and {type(made).__name__} second, where "
            f"{kind.__name__} must be second"
        )


def in_order(original: Any, made: Any, kind: type[Made], call: str) -> tuple[Any, Made]:
    """Returns the original and what was made of it, also from calls in the former order.

    The chip pipeline took the program first in former versions. Types tell the two apart, so that
    such a call still means what it did, and warns.

    Args:
        original: the first argument.
        made: the second argument.
        kind: what the second argument must be and the first cannot be.
        call: the right call, for the message.

    Raises:
        UsageError: neither order fits; names the right one and what was found.
    """
    if isinstance(original, kind) and not isinstance(made, kind):
        warnings.warn(f"the original comes first now: {call}", FutureWarning, stacklevel=5)
        return made, original
    check_order(original, made, kind, call)
    return original, made

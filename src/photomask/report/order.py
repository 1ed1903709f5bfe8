"""The order of arguments of every comparison with an original, which both pipelines share."""

from photomask.errors import UsageError


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

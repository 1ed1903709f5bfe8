"""Reads what users type about pruning, such as `2:4`, `8x8` or 0.8, before PyTorch is imported."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from photomask.errors import UsageError

if TYPE_CHECKING:
    from photomask.chip.sparsity import Blocks, NofM

_PATTERN = re.compile(r"(\d{1,4})([:x])(\d{1,4})")


def check_share(option: str) -> Callable[[float | None], float | None]:
    """Returns the check of a number between 0 and 1."""

    def check(given: float | None) -> float | None:
        if given is not None and not 0 < given < 1:
            raise UsageError(f"{option} takes a number above 0 and below 1, found {given:g}")
        return given

    return check


def check_pattern(given: str | None) -> str | None:
    """Checks a pattern.

    Raises:
        UsageError: it is neither N:M nor OUTPUTSxINPUTS.
    """
    if given is None:
        return None
    found = _PATTERN.fullmatch(given)
    if found is None:
        raise UsageError(
            f"{given!r} is no pattern; give N:M, such as 2:4, or the outputs and inputs of a "
            "block, such as 8x8"
        )
    first = int(found[1])
    second = int(found[3])
    if found[2] == ":" and not 1 <= first < second:
        raise UsageError(
            f"the pattern {given} keeps {first} of {second} weights; it must keep at least 1, and "
            f"fewer than {second}"
        )
    if found[2] == "x" and not (first and second):
        raise UsageError(f"a block of {given} holds no weight")
    return given


def read_pattern(given: str | None) -> "NofM | Blocks | None":
    """Returns the pattern that a checked text stands for, or None where there is none."""
    from photomask.chip.sparsity import Blocks, NofM

    found = None if given is None else _PATTERN.fullmatch(given)
    if found is None:
        return None
    first = int(found[1])
    second = int(found[3])
    if found[2] == ":":
        return NofM(kept=first, group=second)
    return Blocks(outputs=first, inputs=second)

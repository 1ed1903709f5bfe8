"""Caches of transformers: under which name they are passed, and which keys they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("cache", "past_key_values")
"""What forwards and their outputs call the cache: from transformers 5.24 on, and before."""


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """Returns the cache among the arguments of a forward; None if there is none.

    Args:
        arguments: by name, as the caller wrote them.
    """
    found = [arguments[name] for name in NAMES if arguments.get(name) is not None]
    return found[0] if found else None


def cache_in(output: Any) -> Any:
    """Returns the cache in what a model returned; None if it returned none.

    Args:
        output: a `ModelOutput`, or the tuple that `return_dict=False` gives.
    """
    if isinstance(output, tuple):
        caches = [each for each in output if hasattr(each, "get_seq_length")]
        return caches[0] if caches else None
    # Not by getattr: the output of new versions has the old name too, and warns when it is read.
    return cache_among(vars(output))

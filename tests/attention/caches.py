"""How the installed version of transformers passes a cache."""

from typing import Any

import transformers

_VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
NAME = "cache" if _VERSION >= (5, 24) else "past_key_values"


def holding(cache: Any) -> dict[str, Any]:
    """Returns the argument of a forward that continues a cache."""
    return {NAME: cache}


def cache_of(output: Any) -> Any:
    """Returns the cache that a forward or `generate` returned."""
    return getattr(output, NAME)

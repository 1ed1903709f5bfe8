"""How transformers and the modules of a model come to call the plug-in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from photomask.attention.plugin.dispatch import answer
from photomask.attention.plugin.masks import NAME, PromptMask
from photomask.errors import UsageError


class Hook:
    """A hook of a converted model that stays outside compiled graphs."""

    def __init__(self, function: Callable[..., Any]):
        """Wraps a function.

        Args:
            function: of a module, as `register_forward_hook` and its siblings take it.
        """
        self._call = _outside_graphs(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self._call(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        """Copies of a model share it, since it keeps nothing."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled.

        Raises:
            UsageError: always. What transformers leaves on a model that has run cannot be pickled
                either, and the process that loads it would not know the attention.
        """
        raise UsageError(
            "a converted model cannot be pickled or saved by torch.save; save the plan "
            "(plan.save) and the original (unconvert(model).save_pretrained), and convert again "
            "where they are loaded"
        )


def register() -> None:
    """Makes the attention and its masks known to transformers; again does no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _outside_graphs(answer))
    AttentionMaskInterface.register(NAME, _outside_graphs(PromptMask.make))


@functools.cache
def _outside_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps `torch.compile` out of a function; it breaks the graph there and stays right.

    Here rather than as a decorator, which would import the compiler with the package.
    """
    reason = "a plan is decided from token ids; compile without fullgraph=True"
    return torch.compiler.disable(function, reason=reason)

"""Registers the plug-in in transformers, and wraps the hooks of a converted model."""

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
            function: a hook, as `register_forward_hook` and similar methods take it.
        """
        self._call = _outside_graphs(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the wrapped function."""
        return self._call(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        """Returns itself. Copies of a model can share a hook, because it keeps no state."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuses to be pickled.

        Raises:
            UsageError: always. The objects that transformers keeps on a model that has run cannot
                be pickled either, and the process that loads the model would not know the attention
                function.
        """
        raise UsageError(
            "a converted model cannot be pickled or saved by torch.save; save the plan "
            "(plan.save) and the original (unconvert(model).save_pretrained), and convert again "
            "where they are loaded"
        )


def register() -> None:
    """Registers the attention function and its masks in transformers. It may be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _outside_graphs(answer))
    AttentionMaskInterface.register(NAME, _outside_graphs(PromptMask.make))


@functools.cache
def _outside_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that `torch.compile` does not compile: it breaks its graph there.

    The wrapping happens at the first use. As a decorator, it would import the compiler together
    with the package.
    """
    reason = "a plan is decided from token ids; compile without fullgraph=True"
    return torch.compiler.disable(function, reason=reason)

"""The object that transformers passes to the attention layers in place of a mask."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout
from photomask.attention.plugin.calls import AttentionCall
from photomask.attention.plugin.forwards import Forward
from photomask.attention.plugin.rules import find_rule
from photomask.errors import LayoutError

NAME = "photomask"
"""The name under which the attention function is registered in transformers."""

DENSE = "sdpa"
"""The name of the model's own attention, which computes every forward without image rows."""


class PromptMask:
    """A mask that is not made yet. It becomes the model's own mask, or a call for a plan.

    Attributes:
        ndim: the number of dimensions of a finished mask, because transformers reads it.
    """

    ndim = 4

    def __init__(self, **arguments: Any):
        """Keeps the arguments of a mask function; see `masking_utils` of transformers."""
        offset = arguments["q_offset"]
        if isinstance(offset, Tensor):  # a static cache later changes this tensor in place
            arguments["q_offset"] = offset.clone()
        self._arguments = arguments
        self._own: tuple[Any] | None = None
        self._forward: Forward | None = None
        self._calls: dict[torch.device, AttentionCall] = {}

    @classmethod
    def make(cls, **arguments: Any) -> PromptMask:
        """Returns a mask for `AttentionMaskInterface`. It keeps a mask that was made before."""
        prepared = arguments.get("attention_mask")
        return prepared if isinstance(prepared, cls) else cls(**arguments)

    def contiguous(self) -> PromptMask:
        """Returns itself. transformers calls this for the masks that it makes for static caches."""
        return self

    def own(self) -> Any:
        """Returns the mask that the model would have made without a plan."""
        if self._own is None:
            from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

            self._own = (ALL_MASK_ATTENTION_FUNCTIONS[DENSE](**self._arguments),)
        return self._own[0]

    def call(self, forward: Forward, device: torch.device) -> AttentionCall:
        """Returns the call of the layers on a device. It is made once for each forward.

        Raises:
            LayoutError: the layout of the keys cannot be derived.
            PlanError: the model uses a mask that a plan cannot express.
        """
        if self._forward is not forward:
            self._forward, self._calls = forward, {}
        if not self._calls:
            made = self._make(forward)
            self._calls[made.layout.device] = made
        if device not in self._calls:
            call = next(iter(self._calls.values()))
            self._calls[device] = AttentionCall(
                _moved(call.layout, device), call.query_start, call.rule
            )
        return self._calls[device]

    def _make(self, forward: Forward) -> AttentionCall:
        """Makes the layout, checks it against the sizes of the mask, and finds the rule.

        Raises:
            LayoutError: the layout does not fit the sizes of the mask.
            PlanError: no rule agrees with the mask.
        """
        asked = self._arguments
        queries, start = asked["q_length"], int(asked["q_offset"])
        key_start, keys = asked["kv_offset"], asked["kv_length"]
        layout = forward.layout(asked["attention_mask"])
        if layout.tokens != start + queries or key_start + keys < layout.tokens:
            raise LayoutError(
                f"{layout.tokens} tokens are known, but the layer has {queries} queries from "
                f"position {start} on and {keys} keys from position {key_start} on; prefix tuning "
                "and tokens that the model adds are not supported"
            )
        windows = {asked.get("local_size"), getattr(asked["config"], "sliding_window", None)}
        rule = find_rule(
            asked["mask_function"],
            layout,
            start,
            key_start,
            sorted(window for window in windows if window is not None),
            forward.family.bidirectional,
        )
        return AttentionCall(layout.tail(key_start), start - key_start, rule)


def _moved(layout: PromptLayout, device: torch.device) -> PromptLayout:
    """Returns the layout on another device."""
    fields = dataclasses.fields(layout)
    return PromptLayout(**{each.name: getattr(layout, each.name).to(device) for each in fields})

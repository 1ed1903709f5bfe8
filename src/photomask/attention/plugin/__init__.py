"""The plug-in for transformers. It registers functions and adds hooks, and patches no class."""

from photomask.attention.plugin.attached import LastForward
from photomask.attention.plugin.attachment import attach, detach, is_attached, last_forward
from photomask.attention.plugin.calls import AttentionCall, AttentionHandler, AttentionRequest
from photomask.attention.plugin.layers import text_attention_layers
from photomask.attention.plugin.masks import NAME
from photomask.attention.plugin.own_layouts import prompt_layout

__all__ = [
    "NAME",
    "AttentionCall",
    "AttentionHandler",
    "AttentionRequest",
    "LastForward",
    "attach",
    "detach",
    "is_attached",
    "last_forward",
    "prompt_layout",
    "text_attention_layers",
]

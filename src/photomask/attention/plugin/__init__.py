"""The plug-in for transformers. It registers functions and adds hooks, and patches no class."""

from photomask.attention.plugin.attachment import attach, detach, is_attached, last_calls
from photomask.attention.plugin.calls import AttentionCall, AttentionHandler, AttentionRequest
from photomask.attention.plugin.layers import text_attention_layers
from photomask.attention.plugin.masks import NAME

__all__ = [
    "NAME",
    "AttentionCall",
    "AttentionHandler",
    "AttentionRequest",
    "attach",
    "detach",
    "is_attached",
    "last_calls",
    "text_attention_layers",
]

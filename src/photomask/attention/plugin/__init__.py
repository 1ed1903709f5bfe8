"""The plug into transformers: two registrations and two hooks, no patched class."""

from photomask.attention.plugin.attachment import NAME, attach, detach
from photomask.attention.plugin.calls import AttentionCall, AttentionHandler, AttentionRequest
from photomask.attention.plugin.layers import text_attention_layers

__all__ = [
    "NAME",
    "AttentionCall",
    "AttentionHandler",
    "AttentionRequest",
    "attach",
    "detach",
    "text_attention_layers",
]

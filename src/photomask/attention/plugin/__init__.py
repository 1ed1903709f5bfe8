"""The plug into transformers: two registrations and two hooks, no patched class."""

from photomask.attention.plugin.layers import text_attention_layers

__all__ = ["text_attention_layers"]

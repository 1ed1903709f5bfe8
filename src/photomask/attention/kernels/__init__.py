"""Executors of attention over a schedule, and the literal reference that they must equal."""

from photomask.attention.kernels.dispatch import prefill_attention
from photomask.attention.kernels.reference import reference_attention

__all__ = ["prefill_attention", "reference_attention"]

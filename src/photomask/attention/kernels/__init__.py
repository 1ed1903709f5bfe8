"""The executors of attention over a schedule, and the literal reference for them."""

from photomask.attention.kernels.dense_heads import DenseKernel
from photomask.attention.kernels.dispatch import (
    Executor,
    check_executor,
    prefill_attention,
)
from photomask.attention.kernels.heads import LayerHeads
from photomask.attention.kernels.reference import reference_attention

__all__ = [
    "DenseKernel",
    "Executor",
    "LayerHeads",
    "check_executor",
    "prefill_attention",
    "reference_attention",
]

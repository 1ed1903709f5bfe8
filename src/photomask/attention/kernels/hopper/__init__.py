"""The sparse kernel for Hopper GPUs. Importing this package imports Triton."""

from photomask.attention.kernels.hopper.prefill import hopper_prefill, hopper_takes

__all__ = ["hopper_prefill", "hopper_takes"]

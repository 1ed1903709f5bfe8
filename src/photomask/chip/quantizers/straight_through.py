"""Straight-through gradients: what training sees in place of a staircase."""

from typing import Any

import torch
from torch import Tensor


class _Replace(torch.autograd.Function):
    """Value of one tensor, gradient to another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, gradients[0], None, None


class _Round(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def pass_gradient(x: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns `value`, exactly, with a gradient to `x` as well.

        d result / d x = 1 where low <= x <= high, else 0;   d result / d value = 1

    Args:
        x: what was quantized.
        value: what became of it; same shape.
        low: lower end of the representable range; broadcasts against `x`.
        high: upper end.

    Source: Bengio et al. 2013, arXiv:1308.3432.
    """
    if not torch.is_grad_enabled():
        return value
    return _Replace.apply(x, value, low, high)  # pyright: ignore[reportReturnType]


def round_half_even(x: Tensor) -> Tensor:
    """Rounds to the nearest integer, ties to even; the gradient passes unchanged."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Round.apply(x)  # pyright: ignore[reportReturnType]
    return x.round()

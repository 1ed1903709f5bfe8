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


class _PassInside(torch.autograd.Function):
    """Value of one tensor, gradient to another inside an open interval."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Tensor, low: Tensor | float, high: Tensor | float
    ) -> Tensor:
        ctx.save_for_backward((x > low) & (x < high))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


class _StandIn(torch.autograd.Function):
    """Value of one tensor, gradient of another."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _ScaleGradient(torch.autograd.Function):
    """The identity, with a gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class _AtLeast(torch.autograd.Function):
    """The larger of two tensors, with a gradient that never leads further below the limit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: Tensor) -> Tensor:
        ctx.save_for_backward(x >= least)
        return torch.maximum(x, least)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return gradients[0] * (above | (gradients[0] < 0)), None


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


def pass_gradient_inside(
    x: Tensor, value: Tensor, low: Tensor | float, high: Tensor | float
) -> Tensor:
    """Returns `value`, exactly, with a gradient to `x` alone: 1 where low < x < high, else 0.

    Unlike `pass_gradient` the limits are outside: there the clipping parameter has the gradient.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return value
    return _PassInside.apply(x, value, low, high)  # pyright: ignore[reportReturnType]


def stand_in(value: Tensor, surrogate: Tensor) -> Tensor:
    """Returns `value`, exactly, with the gradient of `surrogate`, a tensor of the same shape."""
    return _StandIn.apply(value, surrogate)  # pyright: ignore[reportReturnType]


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Returns `x`, exactly, whose gradient is multiplied by `factor`."""
    return _ScaleGradient.apply(x, factor)  # pyright: ignore[reportReturnType]


def at_least(x: Tensor, least: Tensor) -> Tensor:
    """Returns `max(x, least)`; a gradient that would raise an `x` below `least` passes as well."""
    return _AtLeast.apply(x, least)  # pyright: ignore[reportReturnType]


def round_half_even(x: Tensor) -> Tensor:
    """Rounds to the nearest integer, ties to even; the gradient passes unchanged."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Round.apply(x)  # pyright: ignore[reportReturnType]
    return x.round()

"""Provides straight-through gradients for rounding, whose true derivative is almost always 0."""

from typing import Any

import torch
from torch import Tensor


class _Replace(torch.autograd.Function):
    """Returns `value`, with a gradient to `value` and, inside a closed interval, to `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, gradients[0], None, None


class _PassInside(torch.autograd.Function):
    """Returns `value`, with a gradient to `x` inside an open interval."""

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
    """Returns `value`, with the gradient of `surrogate`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _LearnedStep(torch.autograd.Function):
    """Returns `value`, with gradients to the quantized tensor, to the step and to an offset."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        value: Tensor,
        step: Tensor,
        offset: Tensor | None,
        zero_point: Tensor | None,
        low: int,
        high: int,
        factor: float,
    ) -> Tensor:
        ctx.save_for_backward(x, value, step, zero_point)
        ctx.limits = (low, high)
        ctx.factor = factor
        ctx.has_offset = offset is not None
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, value, step, zero_point = ctx.saved_tensors
        (gradient,), (low, high) = gradients, ctx.limits
        if zero_point is not None:
            low, high = low - zero_point, high - zero_point
        inside = (x > low * step) & (x < high * step)
        passed = gradient * inside
        # Inside the range, value / step is the rounded ratio. Outside, it is the limit.
        error = gradient * value - passed * x
        to_offset = None
        if ctx.has_offset:
            clipped = gradient - passed
            error = error + clipped * (zero_point * step)
            to_offset = clipped.sum_to_size(step.shape) * ctx.factor
        to_step = (error.sum_to_size(step.shape) / step) * ctx.factor
        return passed.to(x.dtype), None, to_step, to_offset, None, None, None, None


class _AtLeast(torch.autograd.Function):
    """Returns the larger of two tensors; no gradient step leads further below the limit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: Tensor) -> Tensor:
        ctx.save_for_backward(x >= least)
        return torch.maximum(x, least)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return gradients[0] * (above | (gradients[0] < 0)), None


class _AtMost(torch.autograd.Function):
    """Returns the smaller of two tensors; an `x` above the limit gets a constant gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: Tensor, penalty: float) -> Tensor:
        ctx.save_for_backward(x <= most)
        ctx.penalty = penalty
        return torch.minimum(x, most)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (below,) = ctx.saved_tensors
        (gradient,) = gradients
        return torch.where(below, gradient, ctx.penalty), gradient * ~below, None


class _Round(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def pass_gradient(x: Tensor, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns exactly `value`, with a gradient to `x` as well.

        d result / d x = 1 where low <= x <= high, else 0;   d result / d value = 1

    Args:
        x: the tensor that was quantized.
        value: its quantized value, in the same shape.
        low: the lower end of the representable range; it broadcasts against `x`.
        high: the upper end of the range.

    Source: Bengio et al. 2013, arXiv:1308.3432.
    """
    if not torch.is_grad_enabled():
        return value
    return _Replace.apply(x, value, low, high)  # pyright: ignore[reportReturnType]


def pass_gradient_inside(
    x: Tensor, value: Tensor, low: Tensor | float, high: Tensor | float
) -> Tensor:
    """Returns exactly `value`, with a gradient to `x` only: 1 where low < x < high, else 0.

    Values at the limits count as outside, unlike in `pass_gradient`, because the gradient of a
    clipped value belongs to the clipping parameter.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return value
    return _PassInside.apply(x, value, low, high)  # pyright: ignore[reportReturnType]


def stand_in(value: Tensor, surrogate: Tensor) -> Tensor:
    """Returns exactly `value`, with the gradient of `surrogate`, a tensor of the same shape."""
    return _StandIn.apply(value, surrogate)  # pyright: ignore[reportReturnType]


def learn_step(
    x: Tensor,
    value: Tensor,
    step: Tensor,
    zero_point: Tensor | None,
    *,
    low: int,
    high: int,
    factor: float,
    offset: Tensor | None = None,
) -> Tensor:
    """Returns exactly `value`, with gradients to `x`, to the step and to the offset.

        d value / d x      = 1 where low < x / step + zero_point < high, else 0
        d value / d step   = round(x / step) - x / step inside; outside limit - zero_point, or the
                             limit itself where there is an offset
        d value / d offset = 0 inside, 1 outside

    The last two are multiplied by `factor`. It is one function because every edge of a network has
    it. As separate functions, each with a gradient of its own, it would launch three times as many
    kernels.

    Args:
        x: the tensor that was quantized.
        value: `(code - zero_point) * step`, in the shape of `x`.
        step: the positive scale; it broadcasts against `x`.
        zero_point: int64 in the shape of `step`; None for 0.
        low: the smallest code.
        high: the largest code.
        factor: the factor of the gradients to step and offset.
        offset: the learned real value of code 0, in the shape of `step`; None for no offset.

    Source: Esser et al. 2020, equation 3, arXiv:1902.08153; with an offset Bhalgat et al. 2020,
    equations 4 to 7, arXiv:2004.09576.
    """
    if not torch.is_grad_enabled():
        return value
    return _LearnedStep.apply(  # pyright: ignore[reportReturnType]
        x, value, step, offset, zero_point, low, high, factor
    )


def at_least(x: Tensor, least: Tensor) -> Tensor:
    """Returns `max(x, least)`; below `least`, only a gradient that raises `x` passes."""
    return _AtLeast.apply(x, least)  # pyright: ignore[reportReturnType]


def at_most(x: Tensor, most: Tensor, penalty: float) -> Tensor:
    """Returns `min(x, most)`, with a gradient to the smaller one.

    Where `x` is above `most`, its gradient is `penalty`, that of `penalty * (x - most)`.
    """
    return _AtMost.apply(x, most, penalty)  # pyright: ignore[reportReturnType]


def round_half_even(x: Tensor) -> Tensor:
    """Returns the nearest integers, with ties to even; the gradient is that of the identity."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Round.apply(x)  # pyright: ignore[reportReturnType]
    return x.round()

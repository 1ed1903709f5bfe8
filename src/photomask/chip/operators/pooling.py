"""Maxima and averages over windows."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from photomask.chip.arithmetic import FLOAT64_EXACT, carrier
from photomask.chip.formats import Interval
from photomask.chip.operators.base import (
    Extent,
    Int64,
    Margin,
    Operator,
    Parameters,
    Shape,
    TorchFunction,
    require,
)
from photomask.chip.operators.facts import Family, Scaling
from photomask.chip.operators.work import LaneOperations

Window = tuple[int, int]
"""The first element of a window and the one behind its last, both inside the input."""


class _Pool(Operator):
    """A base for windows over the last one or two axes.

    Every window holds at least one element of the input.
    """

    kernel: tuple[Extent, ...]
    stride: tuple[Extent, ...]
    padding: tuple[Margin, ...]
    """The number of elements before the input at which the first window starts."""
    output_size: tuple[Extent, ...]
    """The number of windows per axis. It decides how partial windows at the end are treated."""
    family: ClassVar[Family] = Family.MAP

    def windows(self, spatial: Shape) -> list[list[Window]]:
        """Returns the windows of each axis for an input of the size `spatial`."""
        return [
            [
                (max(0, at * stride - before), min(size, at * stride - before + kernel))
                for at in range(count)
            ]
            for size, kernel, stride, before, count in zip(
                spatial, self.kernel, self.stride, self.padding, self.output_size, strict=True
            )
        ]

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the shape [N, C, *output_size]."""
        spatial = shapes[0][2:]
        require(
            len(spatial) == len(self.kernel) and len(spatial) in (1, 2),
            f"a kernel of {len(self.kernel)} axes does not fit the shape {shapes[0]}; expected "
            "batch, channels and one or two spatial axes, as many as the kernel has",
        )
        self._check_windows(spatial)
        return (*shapes[0][: -len(self.kernel)], *self.output_size)

    def _check_windows(self, spatial: Shape) -> None:
        """Raises an error for windows that hold no element of the input."""
        for size, kernel, stride, before, count in zip(
            spatial, self.kernel, self.stride, self.padding, self.output_size, strict=True
        ):
            require(
                before < kernel and (count - 1) * stride - before < size,
                f"{count} windows of {kernel} elements at a stride of {stride} do not fit {size} "
                f"elements with a padding of {before}, because one window lies outside the input",
            )

    def _padded(self, x: torch.Tensor, value: int, span: Sequence[int]) -> torch.Tensor:
        """Pads `x` so that every window of `span` elements lies inside."""
        rank = len(span)
        margins: list[int] = []
        for size, length, stride, before, count in reversed(
            list(
                zip(
                    x.shape[-rank:],
                    span,
                    self.stride,
                    self.padding,
                    self.output_size,
                    strict=True,
                )
            )
        ):
            after = (count - 1) * stride - before + length - size
            margins += [before, after]
        return torch.constant_pad_nd(x, margins, value) if any(margins) else x


class MaxPool(_Pool):
    """`y[p] = max(x[p*stride + k*dilation - padding])` over the window's elements in the input."""

    kind: Literal["max_pool"] = "max_pool"
    dilation: tuple[Extent, ...]
    scaling: ClassVar[Scaling] = Scaling.KEPT
    accumulates: ClassVar[bool] = False

    def windows(self, spatial: Shape) -> list[list[Window]]:
        """Returns the span of each window; only the elements at distances of `dilation` count."""
        return [
            [
                (at * stride - before, at * stride - before + (kernel - 1) * dilation + 1)
                for at in range(count)
            ]
            for kernel, dilation, stride, before, count in zip(
                self.kernel, self.dilation, self.stride, self.padding, self.output_size, strict=True
            )
        ]

    def _check_windows(self, spatial: Shape) -> None:
        """Raises an error for windows without input elements, also if dilation skips them."""
        super()._check_windows(spatial)
        for size, dilation, windows in zip(
            spatial, self.dilation, self.windows(spatial), strict=True
        ):
            require(
                all(low >= 0 or (low % dilation < min(size, high)) for low, high in windows),
                f"a window with the dilation {dilation} holds none of the {size} input elements",
            )

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the input's interval."""
        return inputs[0]

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one window after the other."""
        x = inputs[0]
        rank = len(self.kernel)
        result = np.empty((*x.shape[:-rank], *self.output_size), dtype=np.int64)
        windows = self.windows(x.shape[-rank:])
        for position in itertools.product(*map(range, self.output_size)):
            axes = [
                [i for i in range(*windows[axis][at], self.dilation[axis]) if 0 <= i < size]
                for axis, (at, size) in enumerate(zip(position, x.shape[-rank:], strict=True))
            ]
            window = x[(..., *np.ix_(*axes))]
            result[(..., *position)] = window.max(axis=tuple(range(-rank, 0)))
        return result

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that pads with the smallest code, which is never the maximum.

        It is exact in any dtype.
        """
        lowest = inputs[0].low
        span = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

        def run(x: torch.Tensor) -> torch.Tensor:
            x = self._padded(x, lowest, span)
            if len(self.kernel) == 2:
                return F.max_pool2d(x, self.kernel, self.stride, 0, self.dilation)
            kernel, stride, dilation = (
                (1, *sizes) for sizes in (self.kernel, self.stride, self.dilation)
            )
            return F.max_pool2d(x.unsqueeze(-2), kernel, stride, 0, dilation).squeeze(-2)

        return run

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one comparison for each element of each window."""
        return LaneOperations(
            additions=math.prod(self.output_shape(shapes, parameters)) * math.prod(self.kernel)
        )


class AveragePool(_Pool):
    """`accumulator[p] = sum(x[window p] - zero_point)`; a requantization divides by the count.

    If `adaptive` is true, window `i` of `n` over `size` elements reaches from `floor(i*size/n)` to
    `ceil((i+1)*size/n)`. Kernel, stride and padding are then those of the largest window.
    """

    kind: Literal["average_pool"] = "average_pool"
    zero_point: Int64
    adaptive: bool
    scaling: ClassVar[Scaling] = Scaling.SUMMED
    accumulates: ClassVar[bool] = True

    def windows(self, spatial: Shape) -> list[list[Window]]:
        """Returns the windows of each axis for an input of the size `spatial`."""
        if not self.adaptive:
            return super().windows(spatial)
        return [
            [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
            for size, count in zip(spatial, self.output_size, strict=True)
        ]

    def _check_windows(self, spatial: Shape) -> None:
        """Raises an error for adaptive windows larger than the kernel; they are never empty."""
        if not self.adaptive:
            return super()._check_windows(spatial)
        for kernel, windows in zip(self.kernel, self.windows(spatial), strict=True):
            largest = max(high - low for low, high in windows)
            require(
                largest <= kernel,
                f"an adaptive window has {largest} elements, but the kernel has only {kernel}",
            )

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns the interval of a sum over the whole kernel, whose elements may be absent."""
        x = inputs[0].shifted(-self.zero_point).union(Interval(0, 0))
        return x.scaled(math.prod(self.kernel))

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """Computes one window after the other."""
        x = inputs[0] - self.zero_point
        rank = len(self.kernel)
        result = np.empty((*x.shape[:-rank], *self.output_size), dtype=np.int64)
        windows = self.windows(x.shape[-rank:])
        for position in itertools.product(*map(range, self.output_size)):
            span = [slice(*windows[axis][at]) for axis, at in enumerate(position)]
            result[(..., *position)] = x[(..., *span)].sum(axis=tuple(range(-rank, 0)))
        return result

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns a function that sums in float32 or float64, whichever holds all partial sums."""
        interval = self.output_interval(inputs, parameters)
        widest = Interval.hull(interval, inputs[0], self.zero_point)
        if widest.magnitude > FLOAT64_EXACT:
            return self.wrap_oracle(inputs, parameters, device)
        dtype = carrier(widest)
        rank = len(self.kernel)

        def run_regular(x: torch.Tensor) -> torch.Tensor:
            centred = self._padded(x.to(dtype) - self.zero_point, 0, self.kernel)
            if rank == 1:
                summed = F.avg_pool2d(
                    centred.unsqueeze(-2),
                    (1, *self.kernel),
                    (1, *self.stride),
                    divisor_override=1,
                ).squeeze(-2)
            else:
                summed = F.avg_pool2d(centred, self.kernel, self.stride, divisor_override=1)
            return summed.to(carrier(interval))

        def run_adaptive(x: torch.Tensor) -> torch.Tensor:
            total = x.to(dtype) - self.zero_point
            for axis, windows in enumerate(self.windows(tuple(x.shape[-rank:]))):
                at = axis - rank
                total = torch.stack(
                    [total.narrow(at, low, high - low).sum(dim=at) for low, high in windows],
                    dim=at,
                )
            return total.to(carrier(interval))

        return run_adaptive if self.adaptive else run_regular

    def work(self, shapes: Sequence[Shape], parameters: Parameters) -> LaneOperations:
        """Returns one addition for each element of a window."""
        rank = len(self.kernel)
        maps = math.prod(self.output_shape(shapes, parameters)[:-rank])
        windows = self.windows(shapes[0][-rank:])
        elements = math.prod(sum(stop - start for start, stop in axis) for axis in windows)
        return LaneOperations(additions=maps * elements)

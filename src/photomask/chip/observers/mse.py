"""Chooses the range of least mean squared quantization error."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.chip.observers.histogram import DistributionObserver

CANDIDATES = 96
_RATIOS = 2.0 ** (-torch.arange(CANDIDATES, dtype=torch.float32) / 16)
"""Candidates from the whole range down to 1/61 of it, in steps of 4.4 %.

Finer steps are not needed, because the error is flat around its minimum.
"""
_BLOCK = 1 << 17  # values handled at a time, so that every pass over them stays in the cache


class MSE(DistributionObserver):
    """Chooses the range that minimizes the expected squared quantization error.

        range = argmin over candidates of  E[(x - dequantize(quantize(x)))**2]

    The error is that of the quantizer's own grid, with its rounding and saturation. The candidates
    are 96 geometric fractions of the observed range. Both ends shrink together; for an affine grid
    each end then also shrinks alone. The whole range is among the candidates, so the error is never
    larger than that of min-max.

    The channels of a weight are evaluated value by value. An activation is evaluated on its
    histogram. With `u = x / scale + zero_point` and `n = clamp(round(u))`, the squared error
    `(u - n)**2` has the antiderivative `n / 12 + (u - n)**3 / 3`. The error of values that are
    spread uniformly between two bin edges is therefore exact for any number of bits.

    Law: the order and the batching of the values do not matter.

    Source: the criterion of Choukroun et al. 2019, arXiv:1902.06822, and Nagel et al. 2021,
    section 3.1, arXiv:2106.08295. They use a line or golden-section search and no closed form.
    """

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of least error for each row."""
        low, high = low.clamp(max=0), high.clamp(min=0)
        error = self._error_of_values(grid) if self.rows else self._error_of_histogram(grid)
        ratios = _RATIOS.to(low.device).reshape(-1, 1)
        ones = torch.ones_like(ratios)
        low, high = _best(error, low * ratios, high * ratios)
        if not grid.symmetric:
            low, high = _best(error, low * ones, high * ratios)
            low, high = _best(error, low * ratios, high * ones)
        return low, high

    def _error_of_values(self, grid: Grid) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the function from candidate ranges `[K, R]` to squared errors `[K, R]`."""
        values, codes = self.values(), grid.codes
        rows = min(values.shape[0], max(1, _BLOCK // values.shape[1]))
        candidates = max(1, _BLOCK // (rows * values.shape[1]))

        def error(low: Tensor, high: Tensor) -> Tensor:
            scale = grid.scale(low, high)[..., None]
            zero_point = grid.zero_point(low[..., None], scale)
            total = torch.empty_like(low, dtype=torch.float64)
            for part in product(_slices(len(low), candidates), _slices(len(values), rows)):
                ratio = values[part[1]] / scale[part]
                code = ratio.round()
                if grid.symmetric:
                    code.clamp_(codes.low, codes.high)
                else:
                    code.clamp_(codes.low - zero_point[part], codes.high - zero_point[part])
                total[part] = ratio.sub_(code).square_().sum(dim=-1, dtype=torch.float64)
            return total * scale[..., 0].double().square()

        return error

    def _error_of_histogram(self, grid: Grid) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the function from candidate ranges `[K, 1]` to expected errors `[K, 1]`."""
        edges, counts = self.histogram.distribution()
        occupied, width = counts > 0, edges[1] - edges[0]
        codes = grid.codes

        def error(low: Tensor, high: Tensor) -> Tensor:
            scale = grid.scale(low, high)
            zero_point = grid.zero_point(low, scale)
            u = edges / scale.double() + zero_point
            n = u.round().clamp_(codes.low, codes.high)
            integral = (u - n).pow(3).div_(3).add_(n / 12).diff(dim=1)
            per_value = integral[:, occupied] * scale.double().pow(3) / width
            return (per_value @ counts[occupied]).reshape(-1, 1)

        return error


def _slices(count: int, size: int) -> list[slice]:
    """Returns slices of at most `size` elements that cover `count` elements."""
    return [slice(start, start + size) for start in range(0, count, size)]


def _best(
    error: Callable[[Tensor, Tensor], Tensor], low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the candidate of least error for each row; of equal ones, the first and widest."""
    losses = error(low, high)
    index = torch.arange(losses.shape[0], device=losses.device).reshape(-1, 1)
    first = torch.where(losses == losses.amin(dim=0), index, losses.shape[0]).amin(dim=0)
    chosen = first.reshape(1, -1)
    return low.gather(0, chosen)[0], high.gather(0, chosen)[0]

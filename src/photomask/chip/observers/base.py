"""Defines the base class of observers, which tracks extremes and refuses NaN and infinity."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.errors import DataError, QuantizerError, RecipeError


class Observer:
    """Observes values batch by batch, and then chooses the range that the codes represent.

    Values come as rows `[R, N]`: one row for a tensor, or a row for each channel or group. Each row
    gets its own range. The state is plain tensors on the device of the data, and can be copied with
    `deepcopy`.

    A subclass implements `choose`, and also `update` where it needs more than the extremes.
    """

    def __init__(self) -> None:
        self.low: Tensor | None = None
        """The smallest value of each row so far, `[R]` float32; None before the first batch."""
        self.high: Tensor | None = None
        """The largest value of each row so far, `[R]` float32; None before the first batch."""

    @property
    def is_empty(self) -> bool:
        """True before the first batch."""
        return self.low is None

    def observe(self, rows: Tensor) -> None:
        """Observes a batch.

        Args:
            rows: floating-point values `[R, N]`; `R` must be the same in all batches, `N` may vary.

        Raises:
            DataError: there are no values, a value is NaN or infinite, or the number of rows
                differs from earlier batches.
        """
        if rows.dim() != 2 or rows.numel() == 0 or not rows.is_floating_point():
            raise DataError(
                "an observer needs floating-point rows [R, N] with at least one value; "
                f"found {rows.dtype} of shape {list(rows.shape)}"
            )
        rows = rows.detach().float()
        # The extremes also show NaN and infinity, so one pass over the values is enough.
        low, high = _extremes(rows)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise DataError(
                "the observed values hold NaN or infinity; remove such samples from the data, or "
                "repair the weights of the model"
            )
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        elif self.low.shape != low.shape:
            raise DataError(
                f"a batch has {low.numel()} channels or groups, but earlier batches had "
                f"{self.low.numel()}; give all batches the same number"
            )
        else:
            self.low = torch.minimum(self.low, low.to(self.low.device))
            self.high = torch.maximum(self.high, high.to(self.high.device))
        self.update(rows, low, high)

    def range(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Returns the range to represent on `grid`: lower and upper ends, `[R]` float32 each.

        It is never wider than the observed range, and holds more than 0 where the values do.

        Raises:
            QuantizerError: nothing was observed.
        """
        if self.low is None or self.high is None:
            raise QuantizerError(
                "the observer has observed no values; call calibrate(prepared, data) first"
            )
        low, high = self.choose(grid, self.low, self.high)
        low, high = low.to(self.low), high.to(self.high)
        # Where nearly all values are 0, an observer may choose a range that holds only 0.
        nothing = (low == 0) & (high == 0)
        low, high = torch.where(nothing, self.low, low), torch.where(nothing, self.high, high)
        return low.clamp(self.low, self.high), high.clamp(self.low, self.high)

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Updates the state of a subclass with a batch; `low` and `high` are its extremes."""

    @abstractmethod
    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of each row, given the extremes `low` and `high` of all batches."""
        raise NotImplementedError

    def __str__(self) -> str:
        return type(self).__name__


class MinMax(Observer):
    """Chooses the whole range, `[headroom * min x, headroom * max x]` over all batches.

    Headroom is for tensors whose largest values are so rare that new data exceeds the range of the
    calibration data. Each doubling costs one bit of resolution, which wide codes can spare.

    Law: the order and the batching of the values do not matter.

    Args:
        headroom: the factor by which the observed range is widened, at least 1.

    Raises:
        RecipeError: `headroom` is below 1 or not finite.

    Source: Jacob et al. 2018, section 3.1, arXiv:1712.05877, which has no headroom.
    """

    def __init__(self, headroom: float = 1.0):
        super().__init__()
        if not 1 <= headroom < math.inf:
            raise RecipeError(f"headroom must be finite and at least 1, found {headroom}")
        self.headroom = headroom

    def range(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Returns the extremes times the headroom, which may be wider than the observed range.

        Raises:
            QuantizerError: nothing was observed.
        """
        low, high = super().range(grid)
        return low * self.headroom, high * self.headroom

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the extremes."""
        return low, high

    def __str__(self) -> str:
        return "MinMax" if self.headroom == 1 else f"MinMax(headroom={self.headroom:g})"


class MovingAverage(Observer):
    """Chooses the exponential moving average of the batches' extremes.

        low[t] = momentum * low[t-1] + (1 - momentum) * min x[t],   low[0] = min x[0]

    and the same for `high`. It follows drifting data and forgets rare batches. It is the only
    observer here whose result depends on the order of the batches.

    Law: equal batches give their own extremes.

    Args:
        momentum: the weight of earlier batches, in `[0, 1)`.

    Raises:
        RecipeError: `momentum` is outside `[0, 1)`.

    Source: Jacob et al. 2018, section 3.1, arXiv:1712.05877.
    """

    def __init__(self, momentum: float = 0.9):
        super().__init__()
        if not 0 <= momentum < 1:
            raise RecipeError(f"momentum must be in [0, 1), found {momentum}")
        self.momentum = momentum
        self._average: tuple[Tensor, Tensor] | None = None

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Updates the averages with the extremes of a batch."""
        if self._average is None:
            self._average = low, high
            return
        old_low, old_high = self._average
        blend = 1 - self.momentum
        self._average = (
            old_low.lerp(low.to(old_low), blend),
            old_high.lerp(high.to(old_high), blend),
        )

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the averages."""
        return self._average or (low, high)

    def __str__(self) -> str:
        return f"MovingAverage({self.momentum:g})"


def _extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the minimum and the maximum of each row."""
    if rows.shape[0] == 1:  # a reduction over the whole tensor is several times faster
        low, high = torch.aminmax(rows)
        return low.reshape(1), high.reshape(1)
    return torch.aminmax(rows, dim=1)

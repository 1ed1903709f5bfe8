"""What every observer shares: streaming extremes, and the refusal of NaN and infinity."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.errors import DataError, QuantizerError, RecipeError


class Observer:
    """Watches values batch by batch and then says which range of them is worth representing.

    Values come as rows `[R, N]`: one row for a tensor, one a channel or one a group; each row gets
    its own range. The state is plain tensors on the device of the data and survives `deepcopy`.

    A subclass implements `choose`, and `update` if the extremes are not enough for it.
    """

    def __init__(self) -> None:
        self.low: Tensor | None = None
        """Smallest value of each row so far, `[R]` float32; None before the first batch."""
        self.high: Tensor | None = None
        """Largest value of each row so far."""

    @property
    def is_empty(self) -> bool:
        """True before the first batch."""
        return self.low is None

    def observe(self, rows: Tensor) -> None:
        """Adds a batch.

        Args:
            rows: `[R, N]` floating point; `R` must stay the same, `N` may vary.

        Raises:
            DataError: no values, NaN or infinity, or another number of rows than before.
        """
        if rows.dim() != 2 or rows.numel() == 0 or not rows.is_floating_point():
            raise DataError(
                "an observer needs floating-point rows [R, N] with at least one value; "
                f"found {rows.dtype} of shape {list(rows.shape)}"
            )
        rows = rows.detach().float()
        # One pass answers three questions: NaN and infinity both show in the extremes.
        low, high = _extremes(rows)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise DataError("calibration data holds NaN or infinity")
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        elif self.low.shape != low.shape:
            raise DataError(
                f"{low.numel()} channels or groups observed after {self.low.numel()} before"
            )
        else:
            self.low = torch.minimum(self.low, low.to(self.low.device))
            self.high = torch.maximum(self.high, high.to(self.high.device))
        self.update(rows, low, high)

    def range(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Returns the range to represent on `grid`: lower and upper ends, `[R]` float32 each.

        Never wider than what was seen, and never 0 alone where anything else was.

        Raises:
            QuantizerError: nothing was observed.
        """
        if self.low is None or self.high is None:
            raise QuantizerError("nothing was observed: run calibration data through the model")
        low, high = self.choose(grid, self.low, self.high)
        low, high = low.to(self.low), high.to(self.high)
        # Nearly all values may be 0, and then be all that an observer keeps.
        nothing = (low == 0) & (high == 0)
        low, high = torch.where(nothing, self.low, low), torch.where(nothing, self.high, high)
        return low.clamp(self.low, self.high), high.clamp(self.low, self.high)

    def update(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """Takes in a batch whose extremes are `low` and `high`; the extremes are kept already."""

    @abstractmethod
    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses each row's range, given the extremes `low` and `high` of all batches."""
        raise NotImplementedError

    def __str__(self) -> str:
        return type(self).__name__


class MinMax(Observer):
    """The whole range: `[headroom * min x, headroom * max x]` over all batches.

    Headroom is for values whose largest are rare, so that new data exceeds what calibration saw.
    Each doubling costs one bit of resolution; many bits can spare it.

    Law: the order and the batching of the values do not matter.

    Args:
        headroom: how many times the observed range is represented, at least 1.

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
        """Returns the extremes, times the headroom: wider than what was seen if it is above 1.

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
    """The exponential moving average of the batches' extremes.

        low[t] = momentum * low[t-1] + (1 - momentum) * min x[t],   low[0] = min x[0]

    and the same for `high`. It follows drifting data and forgets rare batches; the only observer
    here that depends on the order of the batches. Law: equal batches give their own extremes.

    Args:
        momentum: weight of the past, in `[0, 1)`.

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
        """Blends in the extremes of a batch."""
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
    """Returns minimum and maximum of each row."""
    if rows.shape[0] == 1:  # the reduction of a whole tensor is several times faster
        low, high = torch.aminmax(rows)
        return low.reshape(1), high.reshape(1)
    return torch.aminmax(rows, dim=1)

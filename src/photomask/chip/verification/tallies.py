"""What is counted of an edge while batches pass: noise, ranges, saturation, single channels."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from photomask.chip.program import Edge
from photomask.chip.verification.documents import Statistics
from photomask.report import NoiseMeter

BINS = 64
"""Parts of a format's range in a histogram."""
MARGIN_BINS = 8
"""Parts of the same size beyond either end, for values that the format cuts off."""


@dataclass
class Moments:
    """Ends, sum and sum of squares of values that come batch by batch."""

    count: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        """Counts a batch.

        Args:
            values: float32 or float64 of any shape.
        """
        low, high = values.aminmax()
        self.count += values.numel()
        self.low = min(self.low, float(low))
        self.high = max(self.high, float(high))
        self.total += float(values.sum(dtype=torch.float64))
        self.squares += float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2

    @property
    def statistics(self) -> Statistics:
        """The ends, the mean and the standard deviation of all batches."""
        mean = self.total / self.count
        variance = max(0.0, self.squares / self.count - mean**2)
        return Statistics(low=self.low, high=self.high, mean=mean, deviation=variance**0.5)


@dataclass
class ChannelTally:
    """What is counted of each channel of a layer's output.

    Attributes:
        axis: of the channels.
        signal: sum of the squares of the float values, [channels].
        noise: sum of the squares of the errors, [channels].
        saturated: how many outputs the format cuts off, [channels].
        low: the smallest integer, [channels].
        high: the largest integer, [channels].
        elements: of one channel.
    """

    axis: int
    signal: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    noise: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    saturated: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    low: Tensor | None = None
    high: Tensor | None = None
    elements: int = 0

    def add(self, value: Tensor, real: Tensor, codes: Tensor, cut: Tensor | None) -> None:
        """Counts a batch.

        Args:
            value: the float values.
            real: what the integers stand for.
            codes: the integers.
            cut: which of them the format cuts off; None where it cuts off none.
        """
        axes = [axis for axis in range(value.ndim) if axis != self.axis % value.ndim]
        self.signal = self.signal + value.square().sum(axes, dtype=torch.float64)
        self.noise = self.noise + (real - value).square().sum(axes, dtype=torch.float64)
        low, high = codes.amin(axes), codes.amax(axes)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.elements += value.numel() // value.shape[self.axis]
        if cut is not None:
            self.saturated = self.saturated + cut.sum(axes)

    @property
    def sqnr_db(self) -> np.ndarray:
        """Signal over noise of each channel, float64 [channels]."""
        meters = zip(self.signal.tolist(), self.noise.tolist(), strict=True)
        return np.array([NoiseMeter(signal, noise).sqnr_db for signal, noise in meters])

    @property
    def saturation(self) -> np.ndarray:
        """Percentage of the outputs of each channel that are cut off, float64 [channels]."""
        counts = self.saturated.double().expand(self.signal.shape)
        return (100 * counts / max(1, self.elements)).numpy()

    @property
    def constant(self) -> tuple[int, ...]:
        """The channels whose integer never changed."""
        if self.low is None or self.high is None:
            return ()
        return tuple((self.low == self.high).nonzero().flatten().tolist())


@dataclass
class EdgeTally:
    """What was seen of one edge, in float and in integers."""

    edge: Edge
    channels: ChannelTally | None = None
    """Of the output of a layer with weights."""
    noise: NoiseMeter = field(default_factory=NoiseMeter)
    codes: list[int] = field(default_factory=list)
    floats: Moments = field(default_factory=Moments)
    reals: Moments = field(default_factory=Moments)
    elements: int = 0
    saturated_low: int = 0
    saturated_high: int = 0
    histogram: Tensor = field(
        default_factory=lambda: torch.zeros(BINS + 2 * MARGIN_BINS, dtype=torch.float64)
    )

    def add(self, value: Tensor, codes: Tensor) -> None:
        """Counts a batch: float values and the integers that stand for them."""
        edge, format = self.edge, self.edge.format
        value, codes = value.to(torch.float32), codes.to(torch.float32)
        real = (codes - edge.zero_point).mul_(edge.scale[0])
        self.noise.add(value, real)
        self.floats.add(value)
        self.reals.add(real)
        self.codes += [int(end) for end in codes.aminmax()]
        self.elements += codes.numel()
        position = (value / edge.scale[0]).add_(edge.zero_point)
        low, high = (float(end) for end in position.aminmax())
        cut: Tensor | None = None
        if low < format.low - 0.5:
            below = (position < format.low - 0.5) & (codes == format.low)
            self.saturated_low += int(below.sum())
            cut = below
        if high > format.high + 0.5:
            above = (position > format.high + 0.5) & (codes == format.high)
            self.saturated_high += int(above.sum())
            cut = above if cut is None else cut | above
        if self.channels is not None:
            self.channels.add(value, real, codes, cut)
        margin = MARGIN_BINS / BINS
        part = position.sub_(format.low).div_(format.high - format.low)
        part = part.clamp_(-margin, 1 + margin)
        self.histogram += torch.histc(part, len(self.histogram), -margin, 1 + margin).double()

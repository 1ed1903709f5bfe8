"""Chooses the threshold with the least Kullback-Leibler divergence."""

import torch
from torch import Tensor

from photomask.chip.observers.grid import Grid
from photomask.chip.observers.histogram import BINS, DistributionObserver, Histogram

_RATIOS = 2.0 ** (-torch.arange(96, dtype=torch.float64) / 16)
_UNSEEN = 1e-9  # the least probability of a bin after quantization, so that the logarithm is finite


class KL(DistributionObserver):
    """Chooses the threshold `T` of least Kullback-Leibler divergence; values beyond `±T` saturate.

        T = argmin  sum_i P_i * log(P_i / Q_i)

    `P` is the histogram inside `[-T, T]`; the counts outside are added to its end bins. `Q` is the
    histogram inside `[-T, T]` without those counts, after quantization: the mass of each code is
    spread evenly over the bins that are rounded to it and are not empty. Candidates are geometric
    fractions of the largest magnitude that leave at least one bin per code. Where there is none,
    the result is that of min-max.

    It differs from the source in two ways. The codes are those of the quantizer's own grid, which
    may be affine, on the signed histogram; the source partitions the histogram of `|x|`. And the
    bin at zero counts as much as its neighbour, because zero is exact on every grid, and after a
    ReLU its count would outweigh all others.

    Law: the order and the batching of the values do not matter.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the range of least divergence for each row."""
        histograms = [self.histogram]
        if self.rows:
            histograms = [_histogram_of(row) for row in self.values()]
        thresholds = torch.stack(
            [
                _threshold(grid, histogram, low[row].double(), high[row].double())
                for row, histogram in enumerate(histograms)
            ]
        ).to(low)
        return torch.maximum(low, -thresholds), torch.minimum(high, thresholds)


def _histogram_of(row: Tensor) -> Histogram:
    """Returns the histogram of one channel."""
    histogram = Histogram()
    histogram.add(row, row.min().item(), row.max().item())
    return histogram


def _threshold(grid: Grid, histogram: Histogram, low: Tensor, high: Tensor) -> Tensor:
    """Returns the threshold of least divergence."""
    edges, counts = histogram.distribution()
    centers = (edges[1:] + edges[:-1]) / 2
    counts = _without_zero_peak(edges, counts)
    largest = torch.maximum(high, -low)
    thresholds = largest * _RATIOS.to(largest.device)
    # A candidate needs at least as many bins as codes. With fewer, its histogram would not change
    # by quantization, and the divergence would say nothing.
    inside = centers.abs() <= thresholds[:, None]
    levels = grid.codes.high - grid.codes.low + 1
    usable = inside.sum(dim=1) >= levels
    if not bool(usable[0]) or levels > BINS:
        return largest
    thresholds, inside = thresholds[usable], inside[usable]
    low, high = low.clamp(max=0), high.clamp(min=0)
    lows, highs = torch.maximum(low, -thresholds), torch.minimum(high, thresholds)
    divergences = _divergence(grid, centers, counts, inside, lows[:, None], highs[:, None])
    return thresholds[divergences.argmin()]


def _without_zero_peak(edges: Tensor, counts: Tensor) -> Tensor:
    """Returns counts in which the bin that starts at 0 has its upper (or lower) neighbour's."""
    zero = int((edges[:-1] == 0).nonzero()[0, 0])
    neighbour = zero + 1 if zero + 1 < counts.numel() else zero - 1
    if neighbour < 0:
        return counts
    counts = counts.clone()
    counts[zero] = counts[neighbour]
    return counts


def _divergence(
    grid: Grid, centers: Tensor, counts: Tensor, inside: Tensor, lows: Tensor, highs: Tensor
) -> Tensor:
    """Returns KL(P || Q) of each candidate range; `inside` is `[K, B]`, the ranges `[K, 1]`."""
    kept = counts * inside
    scale = grid.scale(lows, highs)
    code = (centers / scale.double()).round() + grid.zero_point(lows, scale)
    code = code.clamp(grid.codes.low, grid.codes.high).long() - grid.codes.low
    empty = torch.zeros(len(inside), grid.codes.high - grid.codes.low + 1, device=counts.device)
    mass = empty.double().scatter_add(1, code, kept)
    members = empty.double().scatter_add(1, code, (kept > 0).double())
    quantized = (mass / members.clamp(min=1)).gather(1, code) * (kept > 0)

    reference = kept.clone()
    bins = torch.arange(counts.numel(), device=counts.device)
    first = torch.where(inside, bins, counts.numel()).amin(dim=1, keepdim=True)
    last = torch.where(inside, bins, -1).amax(dim=1, keepdim=True)
    below, above = counts * (bins < first), counts * (bins > last)
    reference.scatter_add_(1, first, below.sum(dim=1, keepdim=True))
    reference.scatter_add_(1, last, above.sum(dim=1, keepdim=True))

    p = reference / reference.sum(dim=1, keepdim=True)
    q = (quantized / quantized.sum(dim=1, keepdim=True).clamp(min=1)).clamp(min=_UNSEEN)
    return torch.xlogy(p, p / q).sum(dim=1)

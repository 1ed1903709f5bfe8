import pytest
import torch

from photomask.chip.formats import IntFormat
from photomask.chip.observers import Grid, MeanMagnitude, Moments, Observer, ThreeSigma
from photomask.errors import DataError, QuantizerError

NARROW = Grid(IntFormat(bits=3, signed=True), symmetric=True, narrow=True)
AFFINE = Grid(IntFormat(bits=3, signed=False), symmetric=False)
ROWS = torch.randn(3, 400, generator=torch.Generator().manual_seed(0)) + torch.tensor([[0.5]])


def watched(observer: Observer, rows: torch.Tensor, parts: int = 1) -> Observer:
    for part in rows.chunk(parts, dim=1):
        observer.observe(part)
    return observer


def test_moments_are_the_means_of_every_row():
    observer = watched(Moments(), ROWS, 7)
    assert isinstance(observer, Moments)
    expected = torch.stack([ROWS.mean(1), ROWS.abs().mean(1), ROWS.square().mean(1)])
    torch.testing.assert_close(observer.moments().float(), expected)


@pytest.mark.parametrize("make", [MeanMagnitude, ThreeSigma])
@pytest.mark.parametrize("grid", [NARROW, AFFINE])
def test_order_and_batching_do_not_matter(make, grid):
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    whole = watched(make(), ROWS).range(grid)
    for found, expected in zip(watched(make(), ROWS[:, order], 9).range(grid), whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_mean_magnitude_gives_the_step_that_lsq_starts_with():
    for grid, largest in ((NARROW, 3), (AFFINE, 7)):
        scale = grid.scale(*watched(MeanMagnitude(), ROWS).range(grid))
        expected = 2 * ROWS.abs().mean(1) / largest**0.5
        if not grid.symmetric:  # no wider than what was seen
            expected = torch.minimum(expected, (ROWS.amax(1) - ROWS.amin(1)) / 7)
        torch.testing.assert_close(scale, expected)


def test_three_sigma_is_around_the_mean_and_never_beyond_the_data():
    low, high = watched(ThreeSigma(), ROWS).range(AFFINE)
    mean, sigma = ROWS.mean(1), ROWS.std(1, correction=0)
    torch.testing.assert_close(low, torch.maximum(mean - 3 * sigma, ROWS.amin(1)))
    torch.testing.assert_close(high, torch.minimum(mean + 3 * sigma, ROWS.amax(1)))


@pytest.mark.parametrize("make", [MeanMagnitude, ThreeSigma])
def test_constants_and_zeros_have_a_range(make):
    rows = torch.tensor([[2.0, 2.0], [0.0, 0.0]])
    low, high = watched(make(), rows).range(NARROW)
    assert high[0] == 2
    assert low[1] == high[1] == 0


@pytest.mark.parametrize("make", [MeanMagnitude, ThreeSigma])
def test_nothing_and_nan_are_refused(make):
    with pytest.raises(QuantizerError, match="has observed no values"):
        make().range(NARROW)
    with pytest.raises(DataError, match="NaN"):
        make().observe(torch.tensor([[1.0, float("nan")]]))

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat
from photomask.chip.observers import KL, MSE, Grid, MinMax, MovingAverage, Observer, Percentile
from photomask.errors import DataError, QuantizerError, RecipeError

AFFINE = Grid(IntFormat(bits=8, signed=False), symmetric=False)
SYMMETRIC_4 = Grid(IntFormat(bits=4, signed=True), symmetric=True)
EVERY = [MinMax, MovingAverage, Percentile, MSE, KL]
ORDER_FREE = [MinMax, Percentile, lambda: Percentile(99), MSE, KL]


def samples(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) ** 3


@pytest.mark.parametrize("make", ORDER_FREE)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("grid", [AFFINE, SYMMETRIC_4])
def test_order_and_batching_do_not_matter(make, rows, grid):
    x = samples(rows, 1500)
    whole, parts = make(), make()
    whole.observe(x)
    for part in reversed(x.split([1, 499, 800, 200], dim=1)):
        parts.observe(part)
    for a, b in zip(whole.range(grid), parts.range(grid), strict=True):
        # The rows of a weight are summed in another order, and a tie may then break elsewhere.
        torch.testing.assert_close(a, b, rtol=0 if rows == 1 else 1e-6, atol=0)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("grid", [AFFINE, SYMMETRIC_4])
def test_range_is_never_wider_than_the_data(make, rows, grid):
    observer = make()
    for seed in range(3):
        observer.observe(samples(rows, 500, seed=seed) * 10.0**-seed)
    x = torch.cat([samples(rows, 500, seed=seed) * 10.0**-seed for seed in range(3)], dim=1)
    low, high = observer.range(grid)
    assert low.shape == high.shape == (rows,)
    assert (low >= x.amin(1)).all()
    assert (high <= x.amax(1)).all()
    assert (low <= high).all()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [3.0, 0.0, -2.5, 1e-30])
@pytest.mark.parametrize("rows", [1, 2])
def test_constant_data_keep_their_value(make, value, rows):
    observer = make()
    observer.observe(torch.full((rows, 100), value))
    low, high = observer.range(AFFINE)
    assert (low == np.float32(value)).all()
    assert (high == np.float32(value)).all()


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("rows", [1, 2])
def test_values_that_are_no_numbers_are_refused(make, bad, rows):
    x = torch.zeros(rows, 10)
    x[-1, 7] = bad
    with pytest.raises(DataError, match="NaN or infinity"):
        make().observe(x)


@pytest.mark.parametrize(
    "x", [torch.zeros(1, 0), torch.zeros(0, 4), torch.zeros(3), torch.zeros(1, 3).long()]
)
def test_shapes_and_types_that_cannot_be_observed_are_refused(x):
    with pytest.raises(DataError, match="floating-point rows"):
        MinMax().observe(x)


def test_another_number_of_channels_is_refused():
    observer = MinMax()
    observer.observe(torch.zeros(3, 4))
    with pytest.raises(DataError, match="4 channels"):
        observer.observe(torch.zeros(4, 4))


@pytest.mark.parametrize("make", EVERY)
def test_range_of_nothing_is_an_error(make):
    assert make().is_empty
    with pytest.raises(QuantizerError, match="has observed no values"):
        make().range(AFFINE)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("rows", [1, 2])
def test_a_deep_copy_goes_its_own_way(make, rows):
    observer = make()
    observer.observe(samples(rows, 100))
    before = observer.range(AFFINE)
    twin = copy.deepcopy(observer)
    twin.observe(100 + samples(rows, 100))
    assert all(map(torch.equal, observer.range(AFFINE), before))
    assert (twin.range(AFFINE)[1] > before[1]).all()


@pytest.mark.parametrize("make", EVERY)
def test_observing_changes_no_input(make):
    x = samples(2, 50)
    before = x.clone()
    observer = make()
    observer.observe(x)
    observer.range(AFFINE)
    x += 1
    assert torch.equal(x, before + 1)
    other = make()
    other.observe(before)
    assert all(map(torch.equal, observer.range(AFFINE), other.range(AFFINE)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_moving_average_follows_its_equation(maxima, momentum):
    observer = MovingAverage(momentum)
    expected = None
    for value in maxima:
        observer.observe(torch.tensor([[value, value - 1]]))
        expected = value if expected is None else momentum * expected + (1 - momentum) * value
    low, high = observer.range(AFFINE)
    assert high.item() == pytest.approx(expected, abs=1e-4)
    assert low.item() == pytest.approx(expected - 1, abs=1e-4)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_impossible_momentum_is_refused(momentum):
    with pytest.raises(RecipeError, match="momentum"):
        MovingAverage(momentum)


@pytest.mark.parametrize("percent", [50.0, 100.1, float("nan")])
def test_impossible_percent_is_refused(percent):
    with pytest.raises(RecipeError, match="percent"):
        Percentile(percent)


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("rows", [1, 4])
def test_percentile_agrees_with_numpy(percent, rows):
    x = samples(rows, 5_000)
    observer = Percentile(percent)
    observer.observe(x)
    low, high = observer.range(AFFINE)
    values = x.numpy().astype(np.float64)
    if rows > 1:
        for found, share in ((low, 1 - percent / 100), (high, percent / 100)):
            np.testing.assert_allclose(found, np.quantile(values, share, axis=1), rtol=1e-4)
        return
    # A histogram knows a quantile to one bin: its range over 2048 at most.
    width = (values.max() - values.min()) / 2048
    for found, share in ((low, 1 - percent / 100), (high, percent / 100)):
        assert found.item() >= np.quantile(values, share, method="lower") - width
        assert found.item() <= np.quantile(values, share, method="higher") + width


def test_percentile_ignores_a_single_outlier():
    x = torch.rand(1, 100_000)
    x[0, 5] = 1000.0
    observer = Percentile(99.9)
    observer.observe(x)
    assert observer.range(AFFINE)[1].item() < 1.6


def test_an_observer_of_the_users_own_is_one_method():
    class Half(Observer):
        def choose(self, grid, low, high):
            return low / 2, high / 2

    observer = Half()
    observer.observe(torch.tensor([[-4.0, 2.0]]))
    assert observer.range(AFFINE) == (torch.tensor([-2.0]), torch.tensor([1.0]))
    assert str(observer) == "Half"


def test_headroom_widens_the_range_and_costs_resolution():
    observer = MinMax(4)
    observer.observe(torch.tensor([[-1.0, 3.0]]))
    low, high = observer.range(AFFINE)
    assert (float(low), float(high)) == (-4.0, 12.0)
    assert str(observer) == "MinMax(headroom=4)"
    assert str(MinMax()) == "MinMax"


@pytest.mark.parametrize("headroom", [0.5, 0.0, -2.0, float("nan"), float("inf")])
def test_headroom_below_one_or_not_finite_is_refused(headroom: float):
    with pytest.raises(RecipeError, match="headroom"):
        MinMax(headroom)

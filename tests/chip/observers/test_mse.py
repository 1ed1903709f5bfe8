import numpy as np
import pytest
import torch

from photomask.chip.formats import IntFormat
from photomask.chip.observers import MSE, Grid, MinMax


def error(x: np.ndarray, low: float, high: float, grid: Grid) -> float:
    """The mean squared error of a range, in plain numpy."""
    codes = grid.codes
    low, high = min(low, 0.0), max(high, 0.0)
    if grid.symmetric:
        scale = max(high / codes.high, low / codes.low if codes.low else 0.0)
        zero_point = 0.0
    else:
        scale = (high - low) / (codes.high - codes.low)
        zero_point = np.round(codes.low - low / scale)
    code = np.clip(np.round(x / scale) + zero_point, codes.low, codes.high)
    return float(np.mean((x - (code - zero_point) * scale) ** 2))


def heavy_tailed(rows: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((rows, count), generator=generator)
    return normal * torch.rand((rows, count), generator=generator) ** -0.5


def gelu_like(rows: int, count: int) -> torch.Tensor:
    return torch.nn.functional.gelu(2 * heavy_tailed(rows, count))


GRIDS = [
    Grid(IntFormat(bits=bits, signed=signed), symmetric)
    for bits in (2, 4, 8)
    for signed, symmetric in ((True, True), (False, False), (True, False))
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("make", [heavy_tailed, gelu_like])
def test_no_finer_search_does_much_better(grid, rows, make):
    x = make(rows, 2000)
    observer, whole = MSE(), MinMax()
    observer.observe(x)
    whole.observe(x)
    low, high = observer.range(grid)
    widest_low, widest_high = whole.range(grid)
    for row in range(rows):
        values = x[row].double().numpy()
        found = error(values, low[row].item(), high[row].item(), grid)
        widest = [widest_low[row].item(), widest_high[row].item()]
        assert found <= error(values, *widest, grid) * (1 + 1e-6)
        steps = np.linspace(0.01, 1, 100) if grid.symmetric else np.linspace(0.05, 1, 20)
        lows = steps if not grid.symmetric else [None]
        best = min(
            error(values, widest[0] * (a if b is None else b), widest[1] * a, grid)
            for a in steps
            for b in lows
        )
        assert found <= best * 1.08


def test_closed_form_error_of_a_histogram_agrees_with_the_values():
    x = heavy_tailed(1, 20_000)
    observer = MSE()
    observer.observe(x)
    for grid in GRIDS:
        function = observer._error_of_histogram(grid)
        for ratio in (0.05, 0.3, 1.0):
            low, high = x.min() * ratio, x.max() * ratio
            predicted = function(low.reshape(1, 1), high.reshape(1, 1)).item() / x.numel()
            measured = error(x[0].double().numpy(), low.item(), high.item(), grid)
            assert predicted == pytest.approx(measured, rel=0.03)


def test_sixteen_bits_keep_nearly_the_whole_range():
    grid = Grid(IntFormat(bits=16, signed=True), True)
    x = torch.randn(1, 10_000, generator=torch.Generator().manual_seed(0))
    observer = MSE()
    observer.observe(x)
    low, high = observer.range(grid)
    assert torch.maximum(high, -low).item() > 0.9 * x.abs().max().item()


def test_bits_decide_how_much_is_clipped():
    x = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0))
    observer = MSE()
    observer.observe(x)
    clip = {}
    for bits in (2, 4, 8):
        grid = Grid(IntFormat(bits=bits, signed=True), True, narrow=True)
        clip[bits] = observer.range(grid)[1].item()
    # The best symmetric clips of a normal distribution at 3, 15 and 255 levels, from tables of
    # optimal uniform quantizers (Max 1960): step 1.224, 0.352 (15 levels) times the highest code.
    assert clip[2] == pytest.approx(1.22, abs=0.08)
    assert clip[4] == pytest.approx(0.35 * 7, abs=0.15)
    assert 3.5 < clip[8] < 4.6

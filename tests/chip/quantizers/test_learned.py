"""Gradients of learned quantizers, by hand and by finite differences, and where they start."""

import copy
import math

import pytest
import torch
from torch import Tensor

from photomask.chip.observers import MSE, MinMax, Percentile
from photomask.chip.quantizers import (
    LSQ,
    PACT,
    LSQPlus,
    PerChannel,
    PerGroup,
    PerTensor,
    Quantizer,
)
from photomask.errors import DataError, RecipeError


def fitted(quantizer: Quantizer, x: Tensor) -> Quantizer:
    quantizer.observe(x)
    quantizer.fit()
    return quantizer


def with_step(quantizer: Quantizer, step: float, zero_point: int = 0) -> Quantizer:
    """A quantizer whose step is a power of two, so that limits are exact."""
    fitted(quantizer, torch.tensor([-1.0, 1.0]))
    quantizer.set_parameters(quantizer.format, torch.tensor(step), torch.tensor(zero_point))
    return quantizer


def gradients(quantizer: Quantizer, x: Tensor, *names: str) -> list[Tensor]:
    """Gradients of every element's value to itself and, by name, to parameters."""
    rows: list[list[Tensor]] = [[] for _ in (x, *names)]
    for position in range(len(x)):
        leaf = x.clone().requires_grad_()
        quantizer.zero_grad()
        value = quantizer(leaf)
        assert torch.equal(value, quantizer.dequantize(quantizer.quantize(x)))
        value[position].backward()
        assert leaf.grad is not None
        rows[0].append(leaf.grad[position])
        for row, name in zip(rows[1:], names, strict=True):
            gradient = quantizer.get_parameter(name).grad
            row.append(torch.zeros(()) if gradient is None else gradient.clone())
    return [torch.stack(row) for row in rows]


def lsq_factor(count: int, largest: int) -> float:
    return 1 / math.sqrt(count * largest)


def test_lsq_has_the_gradients_of_the_paper_at_the_limits_too():
    # Codes -8 .. 7 of step 1/4: the limits are -2 and 1.75; 0.125 and 0.375 are ties.
    quantizer = with_step(LSQ(4), 0.25)
    x = torch.tensor([-3.0, -2.0, -1.9375, -0.3, 0.0, 0.125, 0.375, 0.7, 1.75, 1.8, 9.0])
    to_x, to_step = gradients(quantizer, x, "step")
    ratio = x / 0.25
    inside = (ratio > -8) & (ratio < 7)
    expected = torch.where(inside, ratio.round() - ratio, ratio.clamp(-8, 7))
    assert torch.equal(to_x, inside.float())
    torch.testing.assert_close(to_step, expected * lsq_factor(len(x), 7))
    assert inside.tolist() == [False, False, *[True] * 6, False, False, False]


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_the_step_gradient_is_the_slope_of_the_unrounded_surrogate(bits: int):
    """Finite differences of `(v + residual) * s`, the residual of rounding held constant."""
    quantizer = fitted(LSQ(bits, narrow=True), torch.randn(500)).double()
    x = torch.randn(40, dtype=torch.float64) * 2
    step, top = quantizer.scale.detach().clone(), quantizer.codes.high
    residual = (x / step).clamp(-top, top).round() - (x / step).clamp(-top, top)

    def loss(s: Tensor) -> Tensor:
        return (((x / s).clamp(-top, top) + residual) * s).square().sum()

    quantizer(x).square().sum().backward()
    small = 1e-7 * step
    slope = (loss(step + small) - loss(step - small)) / (2 * small)
    found = quantizer.get_parameter("step").grad
    torch.testing.assert_close(found, slope * lsq_factor(40, top), rtol=1e-4, atol=1e-6)


def test_the_gradient_factor_counts_the_values_that_share_a_step_in_one_sample():
    x = torch.randn(6, 10, 4)
    weight = fitted(LSQ(4, granularity=PerChannel(), narrow=True), x)
    assert isinstance(weight, LSQ)
    assert weight.gradient_factor(x) == pytest.approx(lsq_factor(40, 7))
    activation = fitted(LSQ(4, symmetric=False), x)
    assert isinstance(activation, LSQ)
    assert activation.gradient_factor(x) == pytest.approx(lsq_factor(240, 15))
    activation.batched = True
    assert activation.gradient_factor(x) == pytest.approx(lsq_factor(40, 15))
    # The factor is in the gradient alone: the scale itself is what it was.
    assert torch.equal(activation.scale_for(x), activation.scale)


def test_each_channel_learns_its_own_step():
    x = torch.tensor([[0.1, 0.26, 0.9], [1.0, 3.0, 20.0]])
    quantizer = fitted(LSQ(4, granularity=PerChannel(), narrow=True), x)
    quantizer.set_parameters(quantizer.format, torch.tensor([0.25, 2.0]), torch.zeros(2))
    quantizer(x).sum().backward()
    ratio = x / torch.tensor([[0.25], [2.0]])
    expected = torch.where(ratio < 7, ratio.round() - ratio, 7.0).sum(dim=1)
    found = quantizer.get_parameter("step").grad
    torch.testing.assert_close(found, expected * lsq_factor(3, 7))


def test_lsq_starts_where_the_paper_says_and_no_wider_than_the_data():
    x = torch.randn(4, 1000)
    weight = fitted(LSQ(3, granularity=PerChannel(), narrow=True), x)
    torch.testing.assert_close(weight.scale, 2 * x.abs().mean(dim=1) / math.sqrt(3))
    relu = fitted(LSQ(3, symmetric=False), x.relu())
    torch.testing.assert_close(relu.scale, 2 * x.relu().mean() / math.sqrt(7))
    batches = LSQ(3, symmetric=False)
    for part in x.relu().split(1):
        batches.observe(part)
    batches.fit()
    torch.testing.assert_close(batches.scale, relu.scale)
    wide = fitted(LSQ(8, narrow=True), x)
    torch.testing.assert_close(wide.scale, x.abs().max() / 127)
    chosen = fitted(LSQ(4, observer=MinMax()), x)
    torch.testing.assert_close(chosen.scale, fitted(Quantizer(4), x).scale)


def test_lsq_plus_has_the_gradients_of_the_paper_at_the_limits_too():
    # Codes 0 .. 15 of step 1/4, zero point 4: the limits are -1 and 2.75.
    quantizer = with_step(LSQPlus(4, symmetric=False), 0.25, 4)
    x = torch.tensor([-5.0, -1.0, -0.9375, 0.0, 0.3, 0.625, 2.75, 2.8, 7.0])
    to_x, to_step, to_offset = gradients(quantizer, x, "step", "offset")
    position = x / 0.25 + 4
    inside = (position > 0) & (position < 15)
    factor = lsq_factor(len(x), 15)
    expected = torch.where(inside, position.round() - position, position.clamp(0, 15))
    assert torch.equal(to_x, inside.float())
    torch.testing.assert_close(to_step, expected * factor)
    torch.testing.assert_close(to_offset, (~inside).float() * factor)


def test_the_zero_point_follows_offset_and_step_and_zero_stays_exact():
    quantizer = with_step(LSQPlus(4, symmetric=False), 0.25, 4)
    quantizer.get_parameter("offset").data.fill_(-1.4)
    assert quantizer.zero_point.item() == 6  # round(1.4 / 0.25)
    assert quantizer.zero_point.dtype == torch.int64
    quantizer.get_parameter("step").data.fill_(0.5)
    assert quantizer.zero_point.item() == 3
    assert quantizer(torch.zeros(3)).tolist() == [0, 0, 0]
    quantizer.get_parameter("offset").data.fill_(3.0)  # a range without 0
    assert quantizer.zero_point.item() == 0
    assert quantizer(torch.zeros(1)).item() == 0


def test_lsq_plus_starts_from_the_least_error_or_three_deviations():
    x = torch.randn(2000) * 2 + 1
    activation = fitted(LSQPlus(4, symmetric=False), x)
    best = fitted(Quantizer(4, symmetric=False, observer=MSE()), x)
    assert torch.equal(activation.scale, best.scale)
    assert torch.equal(activation.zero_point, best.zero_point)
    weight = fitted(LSQPlus(4, narrow=True), x)
    reach = x.mean() + 3 * x.std(correction=0)
    torch.testing.assert_close(weight.scale, torch.minimum(reach, x.max()) / 7)
    assert "offset" not in dict(weight.named_parameters())


def test_pact_has_the_gradients_of_the_paper_at_the_limits_too():
    quantizer = fitted(PACT(4), torch.tensor([0.0, 1.0]))
    quantizer.set_parameters(quantizer.format, torch.tensor(0.125), torch.tensor(0))
    assert quantizer.get_parameter("clip").item() == 1.875  # 15 * 0.125
    x = torch.tensor([-1.0, 0.0, 0.07, 1.0, 1.874, 1.875, 5.0])
    to_x, to_clip = gradients(quantizer, x, "clip")
    assert to_x.tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert to_clip.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_signed_pact_clips_at_its_lowest_code_too():
    quantizer = with_step(PACT(4), 0.25)
    x = torch.tensor([-9.0, -2.0, -1.9, 0.0, 1.7, 1.75, 3.0])
    to_x, to_clip = gradients(quantizer, x, "clip")
    assert to_x.tolist() == [0, 0, 1, 1, 1, 0, 0]
    torch.testing.assert_close(to_clip, torch.tensor([-8 / 7, -8 / 7, 0, 0, 0, 1, 1]))


def test_pact_starts_from_a_percentile():
    x = torch.rand(10_000)
    expected = fitted(Quantizer(4, observer=Percentile(99.9)), x)
    assert torch.equal(fitted(PACT(4), x).scale, expected.scale)


LEARNED = {
    "lsq": lambda: LSQ(4, granularity=PerChannel(), narrow=True),
    "lsq affine": lambda: LSQ(4, symmetric=False),
    "lsq+": lambda: LSQPlus(4, symmetric=False),
    "lsq+ symmetric": lambda: LSQPlus(4, granularity=PerChannel(), narrow=True),
    "pact": lambda: PACT(4),
    "pact unsigned": lambda: PACT(4, signed=False),
}


def data_for(quantizer: Quantizer) -> Tensor:
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    return x.abs() if quantizer.signed is False else x


@pytest.mark.parametrize("name", LEARNED)
def test_a_step_of_training_changes_the_codes_and_nothing_is_shared_with_copies(name: str):
    quantizer = LEARNED[name]()
    x = data_for(quantizer)
    fitted(quantizer, x)
    twin = copy.deepcopy(quantizer)
    before = quantizer.quantize(x).detach()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.5)
    (quantizer(x) - 2 * x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(quantizer.quantize(x).detach(), before)
    assert torch.equal(twin.quantize(x).detach(), before)
    other = LEARNED[name]()
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), quantizer(x))
    assert torch.equal(other.zero_point, quantizer.zero_point)
    again = dict(quantizer.named_parameters())
    fitted(quantizer, x)  # the parameters that an optimizer holds stay the same objects
    assert all(again[key] is value for key, value in quantizer.named_parameters())


@pytest.mark.parametrize("name", LEARNED)
def test_the_scale_stays_positive_and_comes_back(name: str):
    quantizer = LEARNED[name]()
    x = data_for(quantizer)
    start = fitted(quantizer, x).scale.detach().clone()
    learned = next(iter(quantizer.parameters()))
    learned.data.mul_(-3)
    torch.testing.assert_close(quantizer.scale, start * 2.0**-10)
    assert torch.equal(quantizer(x), quantizer.dequantize(quantizer.quantize(x)))
    optimizer = torch.optim.Adam([learned], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (quantizer(x) - x).square().sum().backward()
        optimizer.step()
    assert (quantizer.scale > start / 8).all()


@pytest.mark.parametrize("make", [LSQ, LSQPlus, PACT])
def test_what_cannot_be_learned_is_refused(make: type[Quantizer]):
    with pytest.raises(RecipeError, match="per tensor or per channel"):
        make(4, granularity=PerGroup(8))
    with pytest.raises(RecipeError, match="use TQT"):
        make(4, power_of_two=True)
    with pytest.raises(DataError, match="NaN"):
        make(4).observe(torch.tensor([1.0, float("nan")]))


def test_pact_has_no_zero_point():
    with pytest.raises(RecipeError, match="use LSQPlus"):
        PACT(4, symmetric=False)
    assert PACT(4).granularity == PerTensor()

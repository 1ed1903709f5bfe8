"""What holds for every quantizer of the field, and each one's own equations."""

import copy
import math

import pytest
import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.observers import Grid, MinMax
from photomask.chip.quantizers import (
    LSQ,
    PACT,
    RCF,
    SAWB,
    TQT,
    APoT,
    Binary,
    DoReFa,
    DoReFaActivation,
    LSQPlus,
    PerChannel,
    PerGroup,
    Quantizer,
    Ternary,
    check_quantizer,
    used_codes,
)
from photomask.chip.quantizers.apot import additive_powers_of_two
from photomask.chip.quantizers.sawb import COEFFICIENTS
from photomask.chip.recipe import Recipe
from photomask.errors import DataError, QuantizerError, RecipeError

CHANNELS = {"granularity": PerChannel()}
ALL = {
    "lsq": lambda bits: LSQ(bits, narrow=True, **CHANNELS),
    "lsq affine": lambda bits: LSQ(bits, symmetric=False),
    "lsq+": lambda bits: LSQPlus(bits, symmetric=False),
    "lsq+ weight": lambda bits: LSQPlus(bits, narrow=True, **CHANNELS),
    "pact": lambda bits: PACT(bits),
    "pact unsigned": lambda bits: PACT(bits, signed=False),
    "sawb": lambda bits: SAWB(bits),
    "sawb channels": lambda bits: SAWB(bits, power_of_two=True, **CHANNELS),
    "rcf": lambda bits: RCF(bits),
    "rcf channels": lambda bits: RCF(bits, narrow=True, **CHANNELS),
    "apot": lambda bits: APoT(bits),
    "apot channels": lambda bits: APoT(bits, **CHANNELS),
    "tqt": lambda bits: TQT(bits),
    "tqt unsigned": lambda bits: TQT(bits, signed=False),
    "tqt channels": lambda bits: TQT(bits, narrow=True, **CHANNELS),
    "dorefa": lambda bits: DoReFa(bits),
    "dorefa channels": lambda bits: DoReFa(bits, **CHANNELS),
    "dorefa activation": lambda bits: DoReFaActivation(bits),
    "binary": lambda bits: Binary(),
    "binary layer": lambda bits: Binary(**{"granularity": Quantizer().granularity}),
    "ternary": lambda bits: Ternary(),
}


def fitted(quantizer: Quantizer, x: Tensor) -> Quantizer:
    quantizer.observe(x)
    quantizer.fit()
    return quantizer


def samples(quantizer: Quantizer) -> Tensor:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    return x.abs() if quantizer.signed is False else x


@pytest.mark.parametrize("bits", [2, 5])
@pytest.mark.parametrize("name", ALL)
def test_every_quantizer_keeps_the_contract(name: str, bits: int):
    quantizer = ALL[name](bits)
    check_quantizer(quantizer)


@pytest.mark.parametrize("name", ALL)
def test_every_quantizer_survives_copies_files_and_training_steps(name: str):
    quantizer = ALL[name](4) if "nary" not in name else ALL[name](2)
    x = samples(quantizer)
    twin = copy.deepcopy(fitted(quantizer, x))
    loaded = ALL[name](4)
    loaded.load_state_dict(quantizer.state_dict())
    for other in (twin, loaded):
        assert torch.equal(other.eval()(x), quantizer.eval()(x))
        assert other.format == quantizer.format
    weight = torch.nn.Parameter(x.clone())
    optimizer = torch.optim.SGD([weight, *quantizer.train().parameters()], lr=0.1)
    (quantizer(weight) - 1).square().sum().backward()
    optimizer.step()
    assert not torch.equal(weight, x)
    assert (quantizer.scale > 0).all()
    assert torch.equal(twin(x), loaded(x))
    with pytest.raises(DataError, match="NaN"):
        ALL[name](4).observe(torch.full((2, 3), float("nan")))


@pytest.mark.parametrize("name", ALL)
def test_the_codes_in_use_are_those_that_values_get(name: str):
    quantizer = ALL[name](4)
    x = samples(quantizer)
    fitted(quantizer, x)
    used = used_codes(quantizer)
    assert set(quantizer.quantize(4 * x).detach().unique().tolist()) <= set(used)
    expected = {"binary": 2, "ternary": 3, "apot": 15}.get(name.split()[0])
    assert len(used) == (expected or quantizer.codes.high - quantizer.codes.low + 1)


def test_codes_in_use_of_groups_and_inner_channels():
    x = torch.randn(4, 6, 5)
    assert used_codes(fitted(Quantizer(3, granularity=PerGroup(3)), x)) == tuple(range(-4, 4))
    for axis in (1, -1, -2):
        quantizer = fitted(Quantizer(3, granularity=PerChannel(axis)), x)
        assert used_codes(quantizer) == tuple(range(-4, 4))
    with pytest.raises(QuantizerError, match="never calibrated"):
        used_codes(Quantizer())


@pytest.mark.parametrize("make", [SAWB, APoT, DoReFa, Binary, Ternary])
def test_weights_only_means_no_activations(make: type[Quantizer]):
    with pytest.raises(RecipeError, match=f"{make.__name__} is for weights only"):
        Recipe(activation=make())
    Recipe(weight=make())


@pytest.mark.parametrize("make", [SAWB, DoReFa, Binary, Ternary])
def test_scales_of_statistics_follow_the_weight_in_training_alone(make: type[Quantizer]):
    x = samples(make())
    quantizer = fitted(make(), x)
    before = quantizer.scale.clone()
    quantizer.eval()(2 * x)
    assert torch.equal(quantizer.scale, before)
    quantizer.train()(2 * x)
    torch.testing.assert_close(quantizer.scale, 2 * before)
    with pytest.raises(DataError, match="NaN"):
        quantizer(torch.full_like(x, float("nan")))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (SAWB, {"bits": 9}),
        (SAWB, {"observer": MinMax()}),
        (SAWB, {"symmetric": False}),
        (DoReFa, {"observer": MinMax()}),
        (DoReFaActivation, {"symmetric": False}),
        (RCF, {"symmetric": False}),
        (RCF, {"granularity": PerGroup(4)}),
        (APoT, {"bits": 9}),
        (APoT, {"signed": False}),
        (TQT, {"symmetric": False}),
        (TQT, {"granularity": PerGroup(4)}),
        (Binary, {"bits": 1}),
        (Ternary, {"bits": 4}),
        (Ternary, {"observer": MinMax()}),
    ],
)
def test_impossible_requests_are_refused(make: type[Quantizer], options: dict):
    with pytest.raises(RecipeError):
        make(**options)


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_sawb_clips_where_the_error_of_bell_shaped_weights_is_least(bits: int):
    generator = torch.Generator().manual_seed(bits)
    normal = torch.randn(20_000, generator=generator)
    laplace = torch.distributions.Laplace(0, 1).icdf(torch.rand(20_000, generator=generator))
    for x in (normal, laplace):
        quantizer = fitted(SAWB(bits), x)
        found = (quantizer.eval()(x) - x).square().mean()
        top = quantizer.codes.high
        errors = []
        for share in torch.linspace(0.1, 1, 60):
            scale = share * x.abs().max() / top
            errors.append(((x / scale).round().clamp(-top, top) * scale - x).square().mean())
        assert found <= 1.25 * min(errors)


def test_sawb_has_a_range_where_its_coefficients_give_none():
    assert fitted(SAWB(8), torch.tensor([1.0, -1.0])).scale.item() == pytest.approx(1 / 127)
    assert fitted(SAWB(2), torch.zeros(3)).scale.item() == 1


def test_rcf_has_the_gradients_of_the_paper_at_the_limits_too():
    quantizer = fitted(RCF(4, narrow=True), torch.tensor([-1.0, 1.0]))
    quantizer.set_parameters(quantizer.format, torch.tensor(0.25), torch.tensor(0))
    assert quantizer.get_parameter("clip").item() == 1.75
    for value, slope in [(-9, -1), (-1.75, -1), (0.3, (1 - 1.2) / 7), (1.75, 1), (2, 1)]:
        x = torch.tensor([float(value)], requires_grad=True)
        quantizer.zero_grad()
        quantizer(x).backward()
        assert quantizer.get_parameter("clip").grad.item() == pytest.approx(slope, abs=1e-6)
        assert x.grad is not None
        assert x.grad.item() == float(abs(value) < 1.75)


def test_the_levels_of_apot_are_those_of_the_paper():
    assert additive_powers_of_two(1) == (0, 1)
    assert additive_powers_of_two(2) == (0, 1, 2, 4)
    assert additive_powers_of_two(3) == (0, 1, 2, 3, 4, 6, 8, 10)
    # Two terms of {0, 1, 1/4, 1/16} and {0, 1/2, 1/8, 1/32}, in units of 1/32.
    pairs = sorted(a + b for a in (0, 32, 8, 2) for b in (0, 16, 4, 1))
    assert additive_powers_of_two(4) == tuple(pairs)
    for bits in range(1, 8):
        assert len(additive_powers_of_two(bits)) == 2**bits


def test_apot_takes_the_nearest_level_and_of_two_the_smaller():
    quantizer = fitted(APoT(4), torch.tensor([-1.0, 1.0]))
    quantizer.set_parameters(quantizer.format, torch.tensor(0.5), torch.tensor(0))
    assert quantizer.format == IntFormat(bits=5, signed=True)
    x = torch.tensor([-9.0, -2.6, -2.5, 0.2, 1.1, 2.4, 2.5, 2.6, 4.5, 4.6, 5.0]).requires_grad_()
    assert quantizer.quantize(x).tolist() == [-10, -6, -4, 0, 2, 4, 4, 6, 8, 10, 10]
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, *[1] * 9, 0]
    inside = x.detach()[1:-1] / 0.5
    residual = torch.tensor([-6, -4, 0, 2, 4, 4, 6, 8, 10]) - inside
    found = quantizer.get_parameter("clip").grad
    torch.testing.assert_close(found, (residual.sum() / 10 + 0).reshape(()))
    assert "15 levels" in repr(quantizer)
    reach = fitted(APoT(4), torch.tensor([-3.0, 3.0]))
    assert reach.scale.item() * 10 == pytest.approx(3)


def test_tqt_has_the_gradients_of_the_paper_at_the_limits_too():
    quantizer = fitted(TQT(4), torch.tensor([-1.0, 1.0]))
    quantizer.get_parameter("log2_threshold").data.fill_(0.3)
    assert quantizer.scale.item() == 2**1 / 8
    for value in (-3.0, -2.0, -1.9, 0.1, 0.3, 1.75, 8.0):
        x = torch.tensor([value], requires_grad=True)
        quantizer.zero_grad()
        quantizer(x).backward()
        ratio = value / 0.25
        inside = -8 < ratio < 7
        slope = round(ratio) - ratio if inside else min(max(ratio, -8), 7)
        found = quantizer.get_parameter("log2_threshold").grad
        assert found.item() == pytest.approx(0.25 * math.log(2) * slope, abs=1e-6)
        assert x.grad is not None
        assert x.grad.item() == pytest.approx(float(inside))


@pytest.mark.parametrize("threshold", [1.0, 1.01, 1.99, 2.0, 0.7])
def test_tqt_starts_at_the_range_and_stays_a_power_of_two(threshold: float):
    quantizer = fitted(TQT(4, observer=MinMax()), torch.tensor([-threshold, 0.1]))
    assert quantizer.scale.item() == 2.0 ** math.ceil(math.log2(threshold)) / 8
    unsigned = fitted(TQT(4, observer=MinMax()), torch.tensor([0, threshold]))
    assert unsigned.scale.item() == 2.0 ** math.ceil(math.log2(threshold)) / 16
    quantizer.get_parameter("log2_threshold").data.add_(-500)
    assert torch.frexp(quantizer.scale).mantissa == 0.5


def test_dorefa_bends_weights_and_keeps_the_largest():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0]).requires_grad_()
    quantizer = fitted(DoReFa(4), x)
    expected = (7 * torch.tanh(x) / math.tanh(2)).round()
    assert torch.equal(quantizer.quantize(x), expected)
    value = quantizer(x)
    torch.testing.assert_close(value, expected * 2 / 7)
    value.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * (1 - torch.tanh(x.detach()) ** 2) / math.tanh(2))


def test_dorefa_activations_live_in_the_unit_interval():
    x = torch.tensor([0.0, 0.3, 1.0, 7.0]).requires_grad_()
    quantizer = fitted(DoReFaActivation(2), x)
    assert quantizer.quantize(x).tolist() == [0, 1, 3, 3]
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0]


def test_binary_weights_have_the_scale_and_gradient_of_the_paper():
    x = torch.tensor([[0.5, -1.5, 0.0, 1.0], [2.0, 2.0, -2.0, -2.0]]).requires_grad_()
    quantizer = fitted(Binary(), x)
    assert quantizer.scale.tolist() == [0.75, 2]
    assert quantizer.quantize(x).tolist() == [[1, -1, 1, 1], [1, 1, -1, -1]]
    assert quantizer.format == IntFormat(bits=2, signed=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 0.25, 1, 1], [0.25] * 4]


def test_ternary_weights_have_the_threshold_and_scale_of_the_paper():
    x = torch.tensor([[0.1, -1.0, 0.4, 0.5], [0.0, 0.0, 0.0, 0.0]]).requires_grad_()
    quantizer = fitted(Ternary(), x)
    assert quantizer.quantize(x).tolist() == [[0, -1, 1, 1], [0, 0, 0, 0]]  # threshold 0.35
    assert quantizer.scale[0].item() == pytest.approx(1.9 / 3)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()
    normal = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(0))
    best = fitted(Ternary(), normal)
    error = (best(normal) - normal).square().mean()
    for share in (0.5, 0.9):  # no other threshold, with its own best scale, is much better
        large = normal.abs() > share * normal.abs().mean()
        scale = normal.abs()[large].mean()
        assert error <= 1.01 * (normal.sign() * large * scale - normal).square().mean()


def test_a_wide_grid_stays_within_its_formula():
    grid = Grid(IntFormat(bits=16, signed=True), symmetric=True)
    quantizer = SAWB(8)
    quantizer.observe(torch.randn(100))
    low, high = quantizer.observer.range(grid)
    assert low < 0 < high

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from photomask.chip.observers import MSE
from photomask.chip.quantizers import (
    AdaRound,
    PerChannel,
    PerGroup,
    PerTensor,
    Quantizer,
    check_quantizer,
)
from photomask.chip.quantizers.adaround import (
    ON_GRID,
    inverse_rectified_sigmoid,
    rectified_sigmoid,
    rounding_regularizer,
)
from photomask.errors import DataError

PER_CHANNEL = PerChannel()
GRANULARITIES = (PerTensor(), PER_CHANNEL, PerGroup(4))


def weight_of(seed: int = 0) -> Tensor:
    return torch.randn(6, 10, 3, 3, generator=torch.Generator().manual_seed(seed))


def fitted(granularity=PER_CHANNEL, weight: Tensor | None = None, **options) -> Quantizer:
    quantizer = Quantizer(4, granularity=granularity, observer=MSE(), **options)
    quantizer.observe(weight_of() if weight is None else weight)
    quantizer.fit()
    return quantizer


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_it_keeps_the_contract(granularity):
    check_quantizer(AdaRound(4, granularity=granularity, narrow=True))


def test_affine_weights_keep_the_contract():
    check_quantizer(AdaRound(4, symmetric=False, granularity=PerChannel()))


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_before_anything_is_learned_it_is_the_nearest_code_and_the_float_weight(granularity):
    weight, plain = weight_of(), fitted(granularity)
    learned = AdaRound.adopt(plain, weight)
    assert torch.equal(learned.eval().quantize(weight), plain.quantize(weight))
    low, high = plain.codes.low, plain.codes.high
    scale = plain.scale_for(weight)
    inside = weight.clamp(low * scale, high * scale)
    assert torch.allclose(learned.train()(weight), inside, rtol=0, atol=1e-5)


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_a_large_shift_rounds_up_and_a_low_one_down(granularity):
    weight, plain = weight_of(), fitted(granularity)
    learned = AdaRound.adopt(plain, weight).eval()
    ratio = weight / plain.scale_for(weight)
    between = (ratio - ratio.round()).abs() > ON_GRID
    for shift, codes in ((20.0, ratio.floor() + 1), (-20.0, ratio.floor())):
        learned.shift.data.fill_(shift)
        expected = codes.clamp(plain.codes.low, plain.codes.high)
        assert torch.equal(learned.quantize(weight)[between], expected[between])
        assert torch.equal(learned.train()(weight), learned.eval()(weight))


def test_the_value_in_evaluation_is_always_that_of_hard_codes():
    weight = weight_of()
    learned = AdaRound.adopt(fitted(), weight)
    learned.shift.data.normal_(generator=torch.Generator().manual_seed(1))
    soft, codes = learned.train()(weight), learned.quantize(weight)
    assert not torch.equal(soft, learned.dequantize(codes))
    assert torch.equal(learned.eval()(weight), learned.dequantize(codes))
    assert torch.equal(codes, codes.round())


def test_weights_on_a_code_stay_there_so_that_zeros_of_a_sparse_weight_do():
    weight = weight_of()
    weight[weight.abs() < 0.5] = 0
    learned = AdaRound.adopt(fitted(weight=weight), weight)
    learned.shift.data.fill_(20.0)
    assert not learned.quantize(weight)[weight == 0].any()
    assert not learned.train()(weight)[weight == 0].any()


def test_hard_codes_of_a_learned_rounding_are_a_fixed_point_of_the_plain_quantizer():
    weight, plain = weight_of(), fitted()
    learned = AdaRound.adopt(plain, weight)
    learned.shift.data.normal_(0, 3, generator=torch.Generator().manual_seed(1))
    codes = learned.quantize(weight)
    assert torch.equal(plain.quantize(plain.dequantize(codes)), codes)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_sigmoid_has_an_inverse(parts):
    part = torch.tensor(parts, dtype=torch.float64)
    found = rectified_sigmoid(inverse_rectified_sigmoid(part))
    assert torch.allclose(found, part, rtol=0, atol=1e-12)


@given(st.floats(-30, 30))
def test_the_sigmoid_reaches_both_ends_and_no_further(alpha):
    found = float(rectified_sigmoid(torch.tensor(alpha, dtype=torch.float64)))
    assert 0 <= found <= 1
    assert found in (0, 1) or abs(alpha) < 2.4


def test_the_gradient_of_the_soft_value_is_its_finite_difference():
    weight = weight_of().double()[:2, :3]
    learned = AdaRound.adopt(fitted(weight=weight_of()[:2, :3]), weight).double()
    learned.shift.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    shift = learned.shift.data.clone().requires_grad_()

    def soft(values: Tensor) -> Tensor:
        other = copy.deepcopy(learned)
        del other.shift
        other.shift = values
        return other.train()(weight)

    assert torch.autograd.gradcheck(soft, (shift,))


@pytest.mark.parametrize("beta", [20.0, 7.5, 2.0])
def test_the_gradient_of_the_regularizer_is_its_finite_difference(beta):
    part = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    part.requires_grad_()
    assert torch.autograd.gradcheck(lambda h: rounding_regularizer(h, beta), (part,))


def test_the_regularizer_is_nothing_for_hard_roundings_and_most_in_the_middle():
    assert float(rounding_regularizer(torch.tensor([0.0, 1.0, 1.0]), 3.0)) == 0
    assert float(rounding_regularizer(torch.tensor([0.5]), 3.0)) == 1


def test_a_weight_of_another_shape_is_refused():
    learned = AdaRound.adopt(fitted(), weight_of())
    shapes = r"shape \[6, 10, 3, 3\], found a tensor of shape \[6, 10, 3, 1\]"
    with pytest.raises(DataError, match=shapes):
        learned(weight_of()[..., :1])


def test_what_was_learned_is_saved_and_loaded():
    weight = weight_of()
    learned = AdaRound.adopt(fitted(), weight)
    learned.shift.data.normal_(0, 3, generator=torch.Generator().manual_seed(1))
    other = AdaRound(4, granularity=PerChannel())
    other.load_state_dict(learned.state_dict())
    assert torch.equal(other.quantize(weight), learned.quantize(weight))
    fresh = AdaRound.adopt(fitted(), weight)
    fresh.load_state_dict(AdaRound.state_dict(_fresh(weight)))
    assert torch.equal(fresh.quantize(weight), fitted().quantize(weight))


def _fresh(weight: Tensor) -> AdaRound:
    quantizer = AdaRound(4, granularity=PerChannel(), observer=MSE())
    quantizer.observe(weight)
    quantizer.fit()
    return quantizer

import pytest
import torch
from torch import Tensor

from photomask.chip.quantizers import PerChannel, QDrop, Quantizer, check_quantizer
from photomask.chip.quantizers.qdrop import drop_quantization
from photomask.errors import RecipeError


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def fitted(quantizer: Quantizer, x: Tensor) -> Quantizer:
    quantizer.observe(x)
    quantizer.fit()
    return quantizer


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"power_of_two": True}])
def test_it_keeps_the_contract(options):
    check_quantizer(QDrop(4, **options))


def test_in_training_every_element_is_quantized_or_left_as_it_is():
    x = values(100, 100)
    quantizer = fitted(QDrop(4, probability=0.3), x)
    found, hard = quantizer.train()(x), quantizer.eval()(x)
    assert bool(((found == x) | (found == hard)).all())
    assert float((found == hard).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_in_evaluation_nothing_is_dropped():
    x = values(20, 20)
    plain = fitted(Quantizer(4, symmetric=False), x)
    assert torch.equal(fitted(QDrop(4, symmetric=False), x).eval()(x), plain(x))


def test_with_everything_kept_it_is_the_plain_quantizer_in_value_and_gradient():
    x = values(50, 50)
    plain = fitted(Quantizer(4, symmetric=False), x * 0.5).train()
    codes, zero = plain.codes, int(plain.zero_point)
    upstream = values(50, 50)
    gradients = []
    results = []
    for dropped in (False, True):
        leaf = x.clone().requires_grad_()
        if dropped:
            low, high = codes.low - zero, codes.high - zero
            result = drop_quantization(leaf, plain.scale, None, low=low, high=high)
        else:
            result = plain(leaf)
        (result * upstream).sum().backward()
        gradients.append(leaf.grad)
        results.append(result)
    assert torch.equal(*results)
    assert torch.equal(*gradients)


def test_where_nothing_is_quantized_the_gradient_is_the_identity():
    x = (10 * values(30, 30)).requires_grad_()
    scale = torch.tensor(0.1, requires_grad=True)
    kept = torch.zeros(x.shape, dtype=torch.bool)
    drop_quantization(x, scale, kept, low=-8, high=7).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert float(scale.grad) == 0


def test_the_gradients_are_finite_differences_of_the_function_with_its_roundings_fixed():
    """`x + scale * (round(x / scale) - x / scale)`, the bracket fixed; the range's ends outside."""
    x = values(40).double().mul(6).requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    kept = torch.rand(40, generator=torch.Generator().manual_seed(1)) < 0.5
    ratio = (x / scale).detach()
    inside, residue = (ratio >= -8) & (ratio <= 7), ratio.round() - ratio

    def smooth(x: Tensor, scale: Tensor) -> Tensor:
        quantized = torch.where(inside, x + scale * residue, scale * ratio.sign() * 7.5 - scale / 2)
        return torch.where(kept, quantized, x)

    upstream = values(40).double()
    expected = []
    for tensor in (x, scale):
        expected.append(finite_difference(smooth, x, scale, tensor, upstream))
    (drop_quantization(x, scale, kept, low=-8, high=7) * upstream).sum().backward()
    assert bool((~inside & kept).any())
    assert torch.allclose(x.grad, expected[0], atol=1e-6)
    assert torch.allclose(scale.grad, expected[1], atol=1e-6)


def finite_difference(function, x: Tensor, scale: Tensor, tensor: Tensor, upstream: Tensor):
    """Returns the derivative of `sum(function * upstream)` by `tensor`, by central differences."""
    step, result = 1e-6, torch.zeros_like(tensor)
    with torch.no_grad():
        for index in range(tensor.numel()):
            ends = []
            for sign in (1, -1):
                moved = tensor.clone()
                moved.view(-1)[index] += sign * step
                arguments = (moved, scale) if tensor is x else (x, moved)
                ends.append(float((function(*arguments) * upstream).sum()))
            result.view(-1)[index] = (ends[0] - ends[1]) / (2 * step)
    return result


@pytest.mark.parametrize("probability", [0.0, -1.0, 1.5, float("nan")])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(RecipeError, match="probability must be above 0 and at most 1"):
        QDrop(4, probability=probability)


def test_scales_per_channel_are_refused():
    with pytest.raises(RecipeError, match="per tensor, found per channel"):
        QDrop(4, granularity=PerChannel())

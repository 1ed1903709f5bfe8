"""A2Q and A2Q+: their equations, their limits for every input, and the gradients of the papers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from photomask.chip.quantizers import A2Q, A2QPlus, PerGroup, PerTensor, check_quantizer
from photomask.chip.quantizers.a2q import PENALTY
from photomask.errors import RecipeError

KINDS = (A2Q, A2QPlus)


def fitted(quantizer: A2Q, x: Tensor, limit: float | None = None) -> A2Q:
    quantizer.observe(x)
    quantizer.fit()
    if limit is not None:
        quantizer.limit = torch.full((len(x),), float(limit))
    return quantizer


def weight(seed: int = 0, shape: tuple[int, ...] = (6, 5, 3, 3), mean: float = 0.1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [None, 12])
def test_the_laws_of_quantizers_hold_with_and_without_a_limit(kind, limit):
    check_quantizer(fitted(kind(4), weight(), limit))


def test_codes_are_those_of_the_paper_in_plain_numpy():
    w = weight()
    quantizer = fitted(A2Q(4), w, 40)
    quantizer.norm_exponent.data.fill_(0.25)
    found = quantizer.quantize(w).detach().numpy()
    v, s = w.double().numpy(), quantizer.scale.detach().double().numpy()
    for channel in range(len(v)):
        norm = np.abs(v[channel]).sum()
        g = min(norm * 2.0**0.25, 40 * s[channel])
        expected = np.clip(np.trunc(g * v[channel] / norm / s[channel]), -7, 7)
        np.testing.assert_array_equal(found[channel], expected)


def test_a2q_plus_centres_the_weights_that_are_not_pruned():
    w = weight()
    w[:, ::2] = 0
    quantizer = fitted(A2QPlus(8), w)
    codes = quantizer.quantize(w).detach()
    assert not codes[:, ::2].any()
    kept = w[:, 1::2].flatten(1).double()
    centred = kept - kept.mean(dim=1, keepdim=True)
    expected = (centred / quantizer.scale.detach().double()[:, None]).trunc().clamp(-127, 127)
    assert torch.equal(codes[:, 1::2].flatten(1).double(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_weight_is_exactly_zero(kind):
    w = weight()
    w[w.abs() < 0.5] = 0
    quantizer = fitted(kind(4), w, 60)
    assert not quantizer.quantize(w)[w == 0].any()
    assert not quantizer(w)[w == 0].any()
    assert not quantizer.quantize(torch.zeros_like(w)).any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    limit=st.integers(1, 2**14),
    bits=st.integers(2, 8),
    size=st.integers(1, 700),
    exponent=st.floats(-8, 8),
)
def test_no_channel_exceeds_its_limit_and_no_half_of_a_centred_one(
    seed: int, limit: int, bits: int, size: int, exponent: float
):
    limit *= 2
    w = weight(seed, (3, size), mean=0.3) * 2.0**exponent
    for kind in KINDS:
        quantizer = fitted(kind(bits), w, limit)
        quantizer.norm_exponent.data.fill_(4.0)  # far above the limit
        codes = quantizer.quantize(w).detach().long()
        assert int(codes.abs().sum(dim=1).max()) <= limit
        if kind is A2QPlus:
            assert int(codes.clamp(min=0).sum(dim=1).max()) <= limit // 2
            assert int(codes.clamp(max=0).sum(dim=1).min()) >= -limit // 2


def test_gradients_below_and_above_the_limit_are_those_of_the_equations():
    w = weight()[:1]
    pull = torch.rand(w.shape, generator=torch.Generator().manual_seed(1))

    def gradients(limit: float) -> tuple[A2Q, float, float]:
        quantizer = fitted(A2Q(8), w, limit)
        (quantizer(w) * pull).sum().backward()
        return quantizer, float(quantizer.scale_exponent.grad), float(quantizer.norm_exponent.grad)

    log2 = float(np.log(2))
    for limit in (1e6, 30.0):
        quantizer, to_scale, to_norm = gradients(limit)
        s, n = quantizer.scale.detach(), quantizer.reference_norm
        limited = n > limit * s
        g = torch.minimum(n, limit * s)
        normed = w * g / w.abs().sum()
        codes = quantizer.quantize(w).detach()
        inside = (normed > -127 * s) & (normed < 127 * s)
        own = float((pull * torch.where(inside, codes - normed / s, codes)).sum() * s * log2)
        through_norm = float((pull * inside * normed).sum() * log2)
        if bool(limited):
            assert to_norm == pytest.approx(PENALTY)
            assert to_scale == pytest.approx(own + through_norm, rel=1e-3)
        else:
            assert to_norm == pytest.approx(through_norm, rel=1e-3)
            assert to_scale == pytest.approx(own, rel=1e-3)


def test_a_bias_raises_the_scale_and_rescaling_keeps_the_codes():
    w = weight()
    quantizer = fitted(A2Q(4), w, 50)
    quantizer.least_scale = 2 * quantizer.scale.detach()
    assert torch.equal(quantizer.scale, quantizer.least_scale)
    codes = quantizer.quantize(w)
    factor = torch.tensor([0.5, 2.0, 0.25, 1.0, 4.0, 8.0])
    quantizer.rescale(factor)
    assert torch.equal(quantizer.quantize(w * factor.reshape(-1, 1, 1, 1)), codes)


@pytest.mark.parametrize(
    "options",
    [
        {"symmetric": False},
        {"granularity": PerTensor()},
        {"granularity": PerGroup(4)},
        {"power_of_two": True},
        {"narrow": False},
        {"signed": False},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_options_that_its_law_of_sums_does_not_cover_are_refused(kind, options):
    with pytest.raises(RecipeError):
        kind(4, **options)

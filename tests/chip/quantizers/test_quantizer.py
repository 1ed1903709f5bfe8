import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from photomask.chip.formats import IntFormat
from photomask.chip.observers import MSE, MinMax, Percentile
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor, Quantizer
from photomask.errors import DataError, QuantizerError, RecipeError

BITS = st.integers(2, 16)
WEIGHTS = arrays(
    np.float32,
    (3, 5, 2),
    elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False),
)


def fit(quantizer: Quantizer, x: torch.Tensor) -> Quantizer:
    quantizer.observe(x)
    quantizer.fit()
    return quantizer


def oracle_codes(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, low: int, high: int):
    """float32 division, half to even, int64: the definition, written in numpy."""
    ratio = (x.astype(np.float32) / scale.astype(np.float32)).astype(np.float32)
    return np.clip(np.rint(ratio).astype(np.int64) + zero_point, low, high)


@settings(max_examples=60, deadline=None)
@given(x=WEIGHTS, bits=BITS, symmetric=st.booleans(), axis=st.sampled_from([None, 0, 1, -1]))
def test_codes_are_the_definition_and_err_by_half_a_step(x, bits, symmetric, axis):
    granularity = PerTensor() if axis is None else PerChannel(axis)
    tensor = torch.from_numpy(x)
    quantizer = fit(Quantizer(bits, symmetric=symmetric, granularity=granularity), tensor)
    scale = quantizer.scale_for(tensor).expand(x.shape).numpy()
    zero_point = quantizer.zero_point_for(tensor).expand(x.shape).numpy()
    codes = quantizer.quantize(tensor)
    format = quantizer.format
    expected = oracle_codes(x, scale, zero_point, format.low, format.high)
    np.testing.assert_array_equal(codes.numpy(), expected)
    # Every value seen lies in the range: half a step, and what float32 loses in a 16-bit code.
    error = np.abs(quantizer(tensor).numpy().astype(np.float64) - x)
    assert (error <= scale.astype(np.float64) * (0.5 + 2**bits * 2.0**-22)).all()
    np.testing.assert_array_equal(quantizer.quantize(quantizer.dequantize(codes)), codes)
    assert (quantizer(torch.zeros_like(tensor)) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    x=WEIGHTS,
    bits=BITS,
    size=st.integers(1, 6),
    multiplier_bits=st.integers(1, 12),
    power_of_two=st.booleans(),
)
def test_group_scales_are_exact_products_that_cover_each_group(
    x, bits, size, multiplier_bits, power_of_two
):
    groups = PerGroup(size, multiplier_bits)
    quantizer = fit(
        Quantizer(bits, granularity=groups, power_of_two=power_of_two, narrow=True),
        torch.from_numpy(x),
    )
    count = groups.groups(5)
    assert quantizer.channel_scale is not None
    assert quantizer.group_multiplier is not None
    assert quantizer.scale.shape == quantizer.group_multiplier.shape == (3, count)
    channel, multiplier = quantizer.channel_scale.double(), quantizer.group_multiplier
    assert torch.equal(quantizer.scale.double(), channel[:, None] * multiplier)
    assert multiplier.min() >= 1
    assert multiplier.max() < 2**multiplier_bits
    assert (quantizer.zero_point == 0).all()
    high = quantizer.codes.high
    for output in range(3):
        for group in range(count):
            largest = np.abs(x[output, size * group : size * group + size]).max()
            reach = quantizer.scale[output, group].item() * high
            assert reach >= largest * (1 - 1e-6)
    if power_of_two:
        assert (torch.frexp(quantizer.scale).mantissa == 0.5).all()


def test_group_multipliers_are_the_smallest_that_cover():
    x = torch.tensor([[127.0, 0.0, 63.0, 1.0, 0.0, 0.0]])
    quantizer = fit(Quantizer(8, granularity=PerGroup(2, 4), narrow=True), x)
    assert quantizer.channel_scale is not None
    torch.testing.assert_close(quantizer.channel_scale, torch.tensor([1 / 15]), rtol=1e-5, atol=0)
    assert quantizer.group_multiplier is not None
    assert quantizer.group_multiplier.tolist() == [[15, 8, 1]]


def test_a_dead_channel_gets_a_floor_and_a_wholly_zero_tensor_scale_one():
    x = torch.stack([torch.linspace(-127, 127, 9), torch.zeros(9), torch.full((9,), 1e-9)])
    quantizer = fit(Quantizer(8, granularity=PerChannel(), narrow=True), x)
    assert quantizer.scale.tolist() == [1.0, 2.0**-16, 2.0**-16]
    assert (fit(Quantizer(8, granularity=PerChannel()), torch.zeros(3, 9)).scale == 1).all()
    assert fit(Quantizer(8), torch.zeros(3, 9)).scale.item() == 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [3.0, -3.0, 0.0, 1e-20])
def test_constant_activations_are_representable(symmetric, value):
    x = torch.full((4, 4), value)
    quantizer = fit(Quantizer(8, symmetric=symmetric), x)
    torch.testing.assert_close(quantizer(x), x, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "data", "expected"),
    [
        ({}, [0.0, 1.0], "uint8"),
        ({}, [-1.0, 1.0], "int8"),
        ({"symmetric": False}, [-1.0, 1.0], "uint8"),
        ({"symmetric": False, "signed": True}, [-1.0, 1.0], "int8"),
        ({"signed": True}, [0.0, 1.0], "int8"),
        ({"narrow": True}, [0.0, 1.0], "int8"),
    ],
)
def test_sign_follows_the_data_unless_the_user_decides(options, data, expected):
    quantizer = fit(Quantizer(8, **options), torch.tensor(data))
    assert str(quantizer.format) == expected


def test_narrow_leaves_out_the_most_negative_code():
    quantizer = fit(Quantizer(8, narrow=True), torch.tensor([-1.0, 1.0]))
    assert quantizer.quantize(torch.tensor([-9.0, 9.0])).tolist() == [-127, 127]
    assert (quantizer.codes.low, quantizer.codes.high) == (-127, 127)


def test_negative_values_for_unsigned_codes_are_an_error():
    with pytest.raises(QuantizerError, match="negative values"):
        fit(Quantizer(8, signed=False), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel()])
def test_every_scale_is_a_power_of_two_if_asked(symmetric, granularity):
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    options = {"symmetric": symmetric, "granularity": granularity}
    plain = fit(Quantizer(6, **options), x).scale
    rounded = fit(Quantizer(6, power_of_two=True, **options), x).scale
    assert (torch.frexp(rounded).mantissa == 0.5).all()
    assert ((rounded >= plain) & (rounded < 2 * plain)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_gradient_is_one_inside_the_range_and_zero_outside(symmetric, training):
    quantizer = fit(Quantizer(4, symmetric=symmetric), torch.tensor([-1.0, 1.0])).train(training)
    x = torch.linspace(-2, 2, 101, requires_grad=True)
    value = quantizer(x)
    value.sum().backward()
    low = (quantizer.codes.low - quantizer.zero_point) * quantizer.scale
    high = (quantizer.codes.high - quantizer.zero_point) * quantizer.scale
    assert x.grad is not None
    assert torch.equal(x.grad, ((x >= low) & (x <= high)).float())
    assert torch.equal(value.detach(), quantizer.dequantize(quantizer.quantize(x.detach())))


def test_a_scale_that_is_a_parameter_gets_the_gradient_of_lsq():
    class Learned(Quantizer):
        def fit(self):
            super().fit()
            self.scale = nn.Parameter(self.scale)

    quantizer = fit(Learned(4, narrow=True), torch.tensor([-1.0, 1.0]))
    x = torch.tensor([-2.0, -0.33, 0.1, 0.9, 3.0])
    quantizer(x).sum().backward()
    ratio = x / quantizer.scale.detach()
    # Esser et al. 2020, equation 3, without the gradient scale.
    expected = torch.where(ratio.abs() < 7, ratio.round() - ratio, ratio.sign() * 7).sum()
    torch.testing.assert_close(quantizer.scale.grad, expected)
    twin = Learned(4, narrow=True)
    fit(twin, torch.tensor([-5.0, 5.0])).load_state_dict(quantizer.state_dict())
    assert torch.equal(twin(x), quantizer(x))
    fit(quantizer, 2 * x)
    assert isinstance(quantizer.scale, nn.Parameter)


GRANULARITIES = [PerTensor(), PerChannel(), PerChannel(1), PerGroup(4)]


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_state_dict_and_deep_copy_keep_codes_and_format(granularity):
    x = torch.randn(6, 10, 3, generator=torch.Generator().manual_seed(0))
    quantizer = fit(Quantizer(5, granularity=granularity), x)
    loaded = Quantizer(5, granularity=granularity)
    loaded.load_state_dict(quantizer.state_dict())
    for twin in (loaded, copy.deepcopy(quantizer)):
        assert twin.is_fitted
        assert twin.format == quantizer.format == IntFormat(bits=5, signed=True)
        assert torch.equal(twin.quantize(x), quantizer.quantize(x))
        for mine, its in zip(quantizer.buffers(), twin.buffers(), strict=True):
            assert torch.equal(mine, its)
            assert mine.data_ptr() != its.data_ptr()


def test_an_unfitted_state_loads_as_unfitted():
    fitted = fit(Quantizer(8, granularity=PerChannel()), torch.randn(3, 4))
    fitted.load_state_dict(Quantizer(8, granularity=PerChannel()).state_dict())
    assert not fitted.is_fitted


def test_calibration_may_go_on_after_fit():
    quantizer = fit(Quantizer(8), torch.tensor([-1.0, 1.0]))
    fit(quantizer, torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(quantizer.scale, torch.tensor(2 / 127))


@pytest.mark.parametrize("call", [lambda q: q.fit(), lambda q: q.format, lambda q: q.codes])
def test_use_before_calibration_is_an_error(call):
    with pytest.raises(QuantizerError, match=r"observed|calibrated"):
        call(Quantizer())
    with pytest.raises(QuantizerError, match="never calibrated"):
        Quantizer()(torch.zeros(3))


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 3), torch.ones(3).long(), torch.tensor([1.0, float("nan")])]
)
def test_unusable_calibration_data_are_refused(x):
    with pytest.raises(DataError):
        Quantizer().observe(x)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 1},
        {"bits": 17},
        {"bits": 4.0},
        {"bits": True},
        {"symmetric": False, "granularity": PerGroup(4)},
        {"symmetric": False, "narrow": True},
        {"signed": False, "narrow": True},
        {"granularity": "per_channel"},
        {"granularity": PerChannel},
        {"observer": MinMax},
        {"observer": "mse"},
    ],
)
def test_impossible_requests_are_refused(options):
    with pytest.raises(RecipeError):
        Quantizer(**options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized_in_float32(dtype):
    x = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    quantizer = fit(Quantizer(12), x)
    assert torch.equal(quantizer.quantize(x), quantizer.quantize(x.float()))


def test_observers_clip_what_min_max_keeps():
    x = torch.randn(8, 500, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 20.0
    widest = fit(Quantizer(4), x)
    for observer in (MSE(), Percentile(99.9)):
        assert fit(Quantizer(4, observer=observer), x).scale < widest.scale / 2


def test_print_says_what_it_is():
    quantizer = Quantizer(4, granularity=PerGroup(32), observer=Percentile(99.9), narrow=True)
    assert repr(quantizer) == (
        "Quantizer(4-bit signed symmetric, per group of 32 (multiplier 8 bits), "
        "Percentile(99.9), narrow)"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("observer", [MinMax, MSE, Percentile])
def test_codes_on_cuda_equal_those_on_cpu(granularity, observer):
    x = torch.randn(6, 10, 3, generator=torch.Generator().manual_seed(0))
    cpu = fit(Quantizer(6, granularity=granularity, observer=observer()), x)
    cuda = fit(Quantizer(6, granularity=granularity, observer=observer()).cuda(), x.cuda())
    assert cuda.scale.is_cuda
    torch.testing.assert_close(cuda.scale.cpu(), cpu.scale, rtol=1e-5, atol=0)
    assert torch.equal(copy.deepcopy(cpu).cuda().quantize(x.cuda()).cpu(), cpu.quantize(x))

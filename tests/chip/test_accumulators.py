"""What accumulators layers need, and weights that are projected so that they fit."""

import numpy as np
import pytest
import torch
from tests.chip.limited_models import (
    images,
    narrow,
    prepared_small,
    small_model,
    small_recipe,
    worst_inputs,
    worst_sums,
)
from torch import nn

from photomask.chip import (
    CEngine,
    NumpyEngine,
    PreparedModel,
    Quantizer,
    TorchEngine,
    align_to_target,
    calibrate,
    convert,
    prepare,
)
from photomask.chip.accumulators import (
    fit_accumulators,
    needed_accumulator_bits,
    signed_bits,
)
from photomask.chip.quantizers import A2Q, APoT, PerChannel, PerGroup
from photomask.chip.weight_rounding import compensate_rounding
from photomask.errors import OrderError, QuantizerError, TargetError


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_needed_bits_are_those_of_the_worst_inputs(symmetric):
    prepared = prepared_small(symmetric=symmetric)
    report = needed_accumulator_bits(prepared, narrow(12))
    program = convert(prepared, narrow(16))
    for layer in report.layers:
        low, high = worst_sums(program)[f"{layer.layer}.accumulator"]
        assert (layer.low, layer.high) == (low, high)
        weight = program.tensors[f"{layer.layer}.weight"]
        assert layer.norm == np.abs(weight).reshape(len(weight), -1).sum(axis=1).max()
        assert layer.bias == np.abs(program.tensors[f"{layer.layer}.bias"]).max()
        assert -(1 << (layer.bits - 1)) <= low
        assert high < 1 << (layer.bits - 1)
        half = 1 << (layer.bits - 2)
        assert low < -half or high >= half
    assert report.bits == max(layer.bits for layer in report.layers)
    assert "needs" in str(report)
    assert "12" in str(report)


def test_the_reported_width_is_the_narrowest_that_converts():
    bits = needed_accumulator_bits(prepared_small()).bits
    convert(prepared_small(), narrow(bits))
    with pytest.raises(TargetError, match="fit_accumulators"):
        convert(prepared_small(), narrow(bits - 1))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("less", [1, 2])
def test_projected_weights_fit_on_every_engine_and_the_report_tells_the_cost(less, symmetric):
    prepared = prepared_small(symmetric=symmetric)
    bits = needed_accumulator_bits(prepared).bits - less
    target = narrow(bits)
    before = {layer.node.name: layer.weight.detach().clone() for layer in prepared.layers()}
    nearest = {layer.node.name: layer.quantized_weight.detach() for layer in prepared.layers()}
    report = fit_accumulators(prepared, target)
    assert report.layers
    assert needed_accumulator_bits(prepared).bits <= bits
    changed = {layer.layer for layer in report.layers}
    for layer in prepared.layers():
        name, weight = layer.node.name, layer.weight.detach()
        assert torch.equal(weight, before[name]) == (name not in changed)
    for layer in report.layers:
        weight = before[layer.layer].double()
        node = prepared.graph.by_name[layer.layer]
        found = prepared.layer(node).quantized_weight.detach().double()
        for value, error in zip((nearest[layer.layer], found), layer.error, strict=True):
            expected = (value - weight).square().sum() / weight.square().sum()
            assert error == pytest.approx(float(expected), rel=1e-4)
        assert layer.error[1] >= layer.error[0]
        assert layer.bits[0] > bits >= layer.bits[1]
        # Toward zero: no code has grown by more than the rounding of the nearest code.
        grown = found.abs() - nearest[layer.layer].double().abs()
        assert float(grown.max()) <= 1e-6
    align_to_target(prepared, target)
    program = convert(prepared, target)
    for low, high in worst_sums(program).values():
        assert -(1 << (bits - 1)) <= low
        assert high < 1 << (bits - 1)
    codes = {program.inputs[0]: worst_inputs(program)}
    expected = NumpyEngine(program).run(codes)
    for engine in (TorchEngine, CEngine):
        for output, integers in engine(program).run(codes).items():
            np.testing.assert_array_equal(np.asarray(integers), expected[output])


def test_what_fits_is_not_touched():
    prepared = prepared_small()
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    assert not fit_accumulators(prepared, narrow(24)).layers
    after = prepared.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "record" not in name)


def test_rounded_weights_can_be_projected_and_are_not_calibrated_again():
    prepared = prepared_small()
    compensate_rounding(prepared, images())
    bits = needed_accumulator_bits(prepared).bits - 1
    fit_accumulators(prepared, narrow(bits))
    convert(prepared, narrow(bits))
    with pytest.raises(OrderError, match="rounded already"):
        calibrate(prepared, images())


def test_an_uncalibrated_model_is_refused():
    prepared = prepare(small_model(), small_recipe(), images(1))
    with pytest.raises(OrderError, match="never calibrated"):
        fit_accumulators(prepared, narrow(16))


def with_large_bias(weight: Quantizer | None = None) -> PreparedModel:
    model = small_model()
    with torch.no_grad():
        model.second.bias[3] = 900.0
    prepared = prepare(model, small_recipe(weight), images(1))
    return calibrate(prepared, images())


def test_a_bias_that_fills_the_accumulator_raises_the_scale_of_its_channel():
    prepared = with_large_bias()
    quantizer = prepared.weight_quantizer("second")
    before = quantizer.scale.clone()
    fit_accumulators(prepared, narrow(12))
    ratio = quantizer.scale / before
    assert float(ratio[3]) > 1
    assert bool((ratio[[0, 1, 2, 4, 5]] == 1).all())
    for low, high in worst_sums(convert(prepared, narrow(12))).values():
        assert low >= -(1 << 11)
        assert high < 1 << 11


def test_a_bias_that_fills_the_accumulator_of_one_scale_is_refused_with_channel_and_law():
    prepared = with_large_bias(Quantizer(4, narrow=True))
    with pytest.raises(TargetError, match=r"weight of 'second'.*channel 3.*laws of sums"):
        fit_accumulators(prepared, narrow(12))


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (Quantizer(4, granularity=PerGroup(2)), "scales per group"),
        (Quantizer(4, symmetric=False, granularity=PerChannel()), "zero point"),
        (APoT(4, granularity=PerChannel()), "are not the nearest integers"),
    ],
)
def test_weights_that_cannot_be_projected_are_refused(weight, match):
    with pytest.raises(QuantizerError, match=f"weight of 'first'.*{match}"):
        fit_accumulators(prepared_small(weight), narrow(9))


def test_a_model_that_was_trained_for_a_wider_target_is_refused():
    prepared = prepared_small(A2Q(4), narrow(12))
    with pytest.raises(QuantizerError, match="train with the target"):
        fit_accumulators(prepared, narrow(10))


class Twice(nn.Module):
    """One layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def test_a_shared_weight_is_projected_once_for_all_its_uses():
    torch.manual_seed(0)
    x = torch.randn(16, 16)
    prepared = prepare(Twice().eval(), small_recipe(), x[:1])
    calibrate(prepared, x)
    bits = needed_accumulator_bits(prepared).bits - 1
    report = fit_accumulators(prepared, narrow(bits))
    assert [layer.layer for layer in report.layers] == ["layer"]
    convert(prepared, narrow(bits))


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 0, 1), (0, 1, 2), (-1, 0, 1), (-2, 1, 2), (-129, 5, 9), (0, 127, 8)],
)
def test_signed_bits_hold_both_ends(low, high, bits):
    assert signed_bits(low, high) == bits

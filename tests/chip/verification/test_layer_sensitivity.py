import json

import pytest
import torch
from torch import Tensor, nn

from photomask import DataError, OrderError, UsageError
from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    calibrate,
    load_recipe,
    prepare,
    verify,
)
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Input
from photomask.chip.mixed_precision.widths import recipe_with_widths
from photomask.chip.verification import LayerSensitivities, measure_layer_sensitivity
from photomask.report import NoiseMeter


def outputs(model: PreparedModel, images: Tensor, quantized: set[str]) -> Tensor:
    """Computes the whole model anew, some of its layers quantized."""
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        for node in model.graph.nodes:
            operands = [values[name] for name in node.inputs]
            if isinstance(node.operation, Input):
                value = images
            elif node.name in quantized:
                value = model.compute(node, operands)
            else:
                value = compute(node, operands, model.constants_of(node))
            values[node.name] = model.settle(node, value) if node.name in quantized else value
    return values[model.graph.outputs[0]]


def noise(expected: Tensor, found: Tensor) -> float:
    meter = NoiseMeter()
    meter.add(expected, found)
    return meter.sqnr_db


@pytest.fixture(scope="module")
def sensitivities(small_prepared: PreparedModel, small_images: Tensor) -> LayerSensitivities:
    return measure_layer_sensitivity(small_prepared, small_images, torch.arange(16) % 5)


def test_every_layer_is_as_when_the_whole_model_is_computed_with_it_switched(
    sensitivities: LayerSensitivities, small_prepared: PreparedModel, small_images: Tensor
):
    names = {node.name for node in small_prepared.graph.nodes if node.operation.is_quantized}
    assert {found.layer for found in sensitivities.layers} == names
    exact = outputs(small_prepared, small_images, set())
    whole = outputs(small_prepared, small_images, names)
    labels = torch.arange(16) % 5
    assert torch.equal(whole, small_prepared(small_images)[0])
    assert sensitivities.quantized.sqnr_db == pytest.approx(noise(exact, whole), abs=1e-3)
    assert sensitivities.float_top1 == pytest.approx(
        100 * float((exact.argmax(1) == labels).float().mean())
    )
    for found in sensitivities.layers:
        for quality, quantized in (
            (found.alone, {found.layer}),
            (found.others, names - {found.layer}),
        ):
            output = outputs(small_prepared, small_images, quantized)
            same = (output.argmax(1) == exact.argmax(1)).float().mean()
            right = (output.argmax(1) == labels).float().mean()
            assert quality.sqnr_db == pytest.approx(noise(exact, output), abs=1e-3)
            assert quality.agreement == pytest.approx(100 * float(same))
            assert quality.top1 == pytest.approx(100 * float(right))


def test_batches_add_up(sensitivities: LayerSensitivities, small_prepared: PreparedModel):
    images = torch.randn(70, 3, 12, 12, generator=torch.Generator().manual_seed(5))
    found = measure_layer_sensitivity(small_prepared, images)
    assert found.samples == 70
    names = {layer.layer for layer in found.layers}
    expected = noise(outputs(small_prepared, images, set()), outputs(small_prepared, images, names))
    assert found.quantized.sqnr_db == pytest.approx(expected, abs=1e-3)
    assert found.float_top1 is None


def test_the_layer_with_two_bits_comes_first(small_network: nn.Module, small_images: Tensor):
    plain = prepare(small_network, load_recipe("w8a8"), small_images[:1])
    layers = [site.name for site in plain.sites if site.has_weight]
    coarse = recipe_with_widths(plain, [(layers[1], "weight", 2)])
    prepared = prepare(small_network, coarse, small_images[:1])
    calibrate(prepared, small_images)
    found = measure_layer_sensitivity(prepared, small_images)
    worst, second = found.layers[:2]
    assert worst.layer == layers[1]
    assert worst.alone.sqnr_db < second.alone.sqnr_db - 3
    assert worst.others.sqnr_db > found.quantized.sqnr_db + 3
    assert worst.layer in str(found).splitlines()[2]


def test_the_model_is_not_changed(small_prepared: PreparedModel, small_images: Tensor):
    before = {name: value.clone() for name, value in small_prepared.state_dict().items()}
    measure_layer_sensitivity(small_prepared, small_images[:2])
    after = small_prepared.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_report_has_it_where_it_is_asked_for(
    small_network: nn.Module,
    small_program: IntegerProgram,
    small_prepared: PreparedModel,
    small_images: Tensor,
):
    report = verify(
        small_network,
        small_program,
        small_images,
        prepared=small_prepared,
        sensitivity_samples=4,
        multiplier_widths=(),
    )
    alone = measure_layer_sensitivity(small_prepared, small_images[:4])
    assert report.sensitivity == alone
    assert json.loads(report.render())["sensitivity"]["samples"] == 4
    section = next(s for s in report.page().sections if "costs the accuracy" in s.title)
    assert [row[0].text for row in section.rows] == [layer.layer for layer in alone.layers]


def test_a_model_that_was_never_calibrated_is_refused(
    small_network: nn.Module, small_images: Tensor
):
    prepared = prepare(small_network, load_recipe("w8a8"), small_images[:1])
    with pytest.raises(OrderError, match="calibrate"):
        measure_layer_sensitivity(prepared, small_images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"sensitivity_samples": 4}, "needs the prepared model"), ({"sensitivity_samples": 0}, "1")],
)
def test_verify_refuses_what_it_cannot_measure(
    small_network: nn.Module,
    small_program: IntegerProgram,
    small_images: Tensor,
    arguments: dict[str, int],
    message: str,
):
    with pytest.raises(UsageError, match=message):
        verify(small_network, small_program, small_images, **arguments)


def test_labels_that_are_no_classes_are_refused(
    small_prepared: PreparedModel, small_images: Tensor
):
    with pytest.raises(DataError, match="labels of output"):
        measure_layer_sensitivity(small_prepared, small_images, torch.full((16,), 9))

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    PreparedModel,
    Report,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)


@pytest.fixture(scope="module")
def report(small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor) -> Report:
    return verify(small_network, small_program, small_images, oracle_samples=1)


@pytest.fixture(scope="module")
def edges(small_program: IntegerProgram, small_images: Tensor) -> dict[str, np.ndarray]:
    codes = {small_program.inputs[0]: small_program.quantize_input(small_images).numpy()}
    return dict(NumpyEngine(small_program).edges(codes))


@pytest.fixture(scope="module")
def floats(small_prepared: PreparedModel, small_images: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {n.name: v.double().numpy() for n, v in small_prepared.graph.run([small_images])}


def real(program: IntegerProgram, edges: dict[str, np.ndarray], name: str) -> np.ndarray:
    edge = program.edges[name]
    return (edges[name] - edge.zero_point) * edge.scale[0]


def test_the_noise_of_a_channel_is_that_of_a_plain_computation(
    report: Report,
    small_program: IntegerProgram,
    edges: dict[str, np.ndarray],
    floats: dict[str, np.ndarray],
):
    weighted = [layer for layer in report.layers if layer.channels is not None]
    assert [layer.weight is not None for layer in report.layers].count(True) == len(weighted) == 3
    for layer in weighted:
        channels = layer.channels
        assert channels is not None
        value, found = floats[layer.node], real(small_program, edges, layer.node)
        assert len(channels.sqnr_db) == value.shape[1]
        for channel, sqnr_db in enumerate(channels.sqnr_db):
            exact = value[:, channel]
            noise = ((found[:, channel] - exact) ** 2).sum()
            assert sqnr_db == pytest.approx(10 * math.log10((exact**2).sum() / noise), abs=1e-3)


def test_scales_and_weights_of_a_channel_are_those_of_the_program(
    report: Report, small_prepared: PreparedModel, small_program: IntegerProgram
):
    for node in small_prepared.graph.nodes:
        if "weight" not in node.constants:
            continue
        channels = next(layer.channels for layer in report.layers if layer.node == node.name)
        assert channels is not None
        scale = small_prepared.weight_quantizer(node.name).scale.reshape(-1).tolist()
        assert channels.weight_scale == pytest.approx(scale, rel=1e-6)
        name = small_program.links.of_node(node.name)[0].tensors["weight"]
        rows = small_program.tensors[name].reshape(len(scale), -1)
        assert channels.weight_low == tuple(rows.min(axis=1))
        assert channels.weight_high == tuple(rows.max(axis=1))


def test_statistics_of_float_and_integer_are_those_of_a_plain_computation(
    report: Report,
    small_program: IntegerProgram,
    edges: dict[str, np.ndarray],
    floats: dict[str, np.ndarray],
):
    for layer in report.layers:
        for found, values in (
            (layer.float_values, floats[layer.node]),
            (layer.integer_values, real(small_program, edges, layer.node)),
        ):
            assert found is not None
            assert (found.low, found.high) == pytest.approx((values.min(), values.max()), rel=1e-5)
            assert found.mean == pytest.approx(values.mean(), abs=1e-5)
            assert found.deviation == pytest.approx(values.std(), abs=1e-5)


def test_a_dead_channel_and_a_saturated_channel_are_named():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight[2] = 0.0
        model[0].bias[2] = -1.0
    images = torch.randn(8, 1, 6, 6)
    prepared = prepare(model, load_recipe("w8a8"), images[:1])
    calibrate(prepared, images)
    program = convert(prepared, load_target("asic"))
    images[:, :, 2:4] *= 3
    report = verify(model, program, images, multiplier_widths=())
    layer = next(layer for layer in report.layers if layer.channels is not None)
    channels = layer.channels
    assert channels is not None
    assert channels.constant == (2,)
    counts = np.array(channels.saturated) / 100 * layer.elements / 4
    assert counts.sum() == pytest.approx(layer.saturated_low + layer.saturated_high)
    assert counts[2] == 0
    assert counts.max() > 0
    section = next(s for s in report.page().sections if s.title == "Channels")
    assert [row[-1].text for row in section.rows] == ["1"]

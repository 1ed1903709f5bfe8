"""Networks from a registry, float to verified integers, with no line of code about any of them."""

import pytest
import torch
from tests.chip.conversion.flow import outputs_of, randomize, signal_to_noise

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.graph.float_graph import largest_difference

timm = pytest.importorskip("timm")

NETWORKS = {
    "resnet18": (64, 25),
    "resnet50": (64, 25),
    "mobilenetv1_100": (64, 25),
    "mobilenetv2_100": (64, 15),
    "efficientnet_lite0": (64, 20),
    "regnetx_002": (64, 25),
    "densenet121": (64, 25),
    "vgg11_bn": (32, 20),
}
"""Input size, and the least SQNR in dB: of random weights, whose outputs nearly cancel."""


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_become_verified_integers(name: str):
    size, least = NETWORKS[name]
    narrow = {"mlp_ratio": 0.05} if name == "vgg11_bn" else {}
    model = randomize(timm.create_model(name, num_classes=10, **narrow))
    x = torch.randn(2, 3, size, size)
    prepared = prepare(model, load_recipe("w8a8-minmax"), x[:1])
    for batch in (x, x[:1]):
        assert largest_difference(prepared.graph(batch), outputs_of(model, [batch])) < 2e-5
    calibrate(prepared, x)
    program = convert(prepared, load_target("asic"))
    assert signal_to_noise(model, [x[:1]], program) > least

import pytest
import torch
from torch import nn

from photomask.zoo import models


@pytest.mark.parametrize(
    ("build", "shape", "classes", "parameters"),
    [
        (models.resnet20, (1, 28, 28), 10, 272_186),
        (models.mobilenet_v1, (1, 28, 28), 10, 823_434),
        (models.mobilenet_v2, (3, 64, 64), 1000, 3_504_872),
        (models.vision_transformer, (1, 28, 28), 10, 937_610),
    ],
)
def test_logits_and_parameters_count(build, shape, classes, parameters):
    model = build().eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, *shape)).shape == (2, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_resnet20_has_twenty_weighted_layers_beside_its_shortcuts():
    layers = [
        name
        for name, module in models.resnet20().named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in name
    ]
    assert len(layers) == 20


def test_mobilenet_v1_widths_are_multiples_of_eight():
    model = models.MobileNetV1(width_multiplier=0.3)
    widths = {m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths)


def test_mobilenet_v2_names_are_torchvisions():
    state = models.mobilenet_v2().state_dict()
    assert len(state) == 314
    assert state["features.1.conv.0.0.weight"].shape == (32, 1, 3, 3)
    assert state["features.17.conv.3.running_var"].shape == (320,)
    assert state["classifier.1.weight"].shape == (1000, 1280)

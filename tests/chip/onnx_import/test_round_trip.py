"""Our own quantized ONNX models come back as the program that they were written from."""

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import converted
from torch import nn

from photomask.chip import load_recipe
from photomask.chip.engines import NumpyEngine
from photomask.chip.onnx_import import import_qdq
from photomask.chip.onnx_models import qdq_model
from photomask.chip.target import PRESETS


class Network(nn.Module):
    """What a convolutional network usually is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = nn.functional.max_pool2d(x, 2)
        x = x + self.depthwise(x)
        x = nn.functional.relu6(self.second(x))
        x = nn.functional.avg_pool2d(torch.cat([x, x], dim=1), 2)
        return self.classifier(x.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize(
    ("recipe", "target"),
    [("w8a8", "asic"), ("w4a8", "asic"), ("w8a8-signed", "tflite"), ("w8a8-po2", "max78000")],
)
def test_a_program_comes_back_with_the_same_integers(recipe: str, target: str):
    torch.manual_seed(0)
    images = torch.randn(8, 2, 8, 8)
    program = converted(Network(), [images], load_recipe(recipe), PRESETS[target])
    again = import_qdq(qdq_model(program), PRESETS[target])
    codes = program.quantize_input(torch.randn(16, 2, 8, 8)).numpy()
    found = NumpyEngine(again).run({again.inputs[0]: codes})[again.outputs[0]]
    expected = NumpyEngine(program).run({program.inputs[0]: codes})[program.outputs[0]]
    np.testing.assert_array_equal(found, expected)
    assert [s.operator.kind for s in again.steps] == [s.operator.kind for s in program.steps]

"""Transformers of timm at small sizes, float to integers that all engines agree on."""

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import codes_of, signal_to_noise

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.engines import CEngine, OnnxEngine
from photomask.chip.program import NumpyEngine

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.filterwarnings("ignore")

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 1),
    "num_heads": (2, 4),
}
MODELS = {
    "deit_tiny": ("deit_tiny_patch16_224", VIT, 32, 25),
    "vit_small": ("vit_small_patch16_224", {**VIT, "qk_norm": True, "init_values": 0.1}, 32, 25),
    "swin_tiny": ("swin_tiny_patch4_window7_224", SWIN, 32, 20),
    # Cosine attention, and positions on a logarithmic scale.
    "swinv2_tiny": ("swinv2_tiny_window8_256", SWIN, 32, 20),
    "convnext_tiny": (
        "convnext_tiny",
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)},
        32,
        20,
    ),
}
"""The name that timm knows, its arguments, the input's size, the least SQNR in dB."""


@pytest.mark.parametrize("name", MODELS)
def test_transformers_of_timm_become_integers_that_every_engine_agrees_on(name: str):
    torch.manual_seed(0)
    known, arguments, size, least = MODELS[name]
    model = timm.create_model(known, num_classes=10, **arguments).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1 and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.5)  # SwinV2's norms start at 0, and add nothing
    x = torch.randn(3, 3, size, size)
    prepared = prepare(model, load_recipe("w8a8-residual16"), x[:1])
    calibrate(prepared, x)
    program = convert(prepared, load_target("asic"))
    assert signal_to_noise(model, [x], program) > least
    codes = {key: value.numpy() for key, value in codes_of(program, [x[:2]]).items()}
    expected = NumpyEngine(program).run(codes)
    for engine in (CEngine(program, compiler="cc -O1"), OnnxEngine(program)):
        found = engine.run(codes)
        for edge in program.outputs:
            np.testing.assert_array_equal(found[edge], expected[edge])

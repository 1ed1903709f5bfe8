"""Whole transformers compute the oracle's integers in RTL, in the cycles of the formula."""

from pathlib import Path

import pytest
import torch
from tests.chip.hardware.rtl_programs import NARROW, built, shared_folder

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.hardware.cycles import model_cycles
from photomask.chip.hardware.rtl_export import export_rtl
from photomask.chip.hardware.simulation import simulate
from photomask.zoo.models import VisionTransformer


@pytest.mark.parametrize("recipe", ["w8a8", "w8a8-symmetric"])
def test_a_vision_transformer(recipe: str, tmp_path_factory, tmp_path: Path):
    torch.manual_seed(0)
    model = VisionTransformer(image_size=8, width=18, depth=1, heads=3, hidden=36, classes=7).eval()
    images = torch.randn(8, 1, 8, 8)
    prepared = prepare(model, load_recipe(recipe), images[:1])
    calibrate(prepared, images)
    program = convert(prepared, load_target("asic"))
    kinds = {step.operator.kind for step in program.steps}
    assert {"convolution", "normalize", "linear", "matmul", "softmax"} <= kinds
    codes = program.quantize_input(images[:1])
    export_rtl(program, tmp_path / "rtl", codes, accelerator=NARROW)
    simulator = built(shared_folder(tmp_path_factory) / "rtl-test-4x4", NARROW)
    report = simulate(tmp_path / "rtl", simulator=simulator)
    assert report.passed, str(report.first_mismatch)
    cycles = {layer.step: layer.rtl_cycles for layer in report.layers if layer.passes}
    assert cycles == model_cycles(program, NARROW)

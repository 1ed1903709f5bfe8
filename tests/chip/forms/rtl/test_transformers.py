"""Whole transformers compute the oracle's integers in RTL, in the cycles of the formula."""

from pathlib import Path

import pytest
import torch
from tests.chip.conversion.test_transformers import FirstOutput, transformers
from tests.chip.forms.rtl.rtl_programs import NARROW, built, shared_folder
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    calibrate,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.simulation import simulate
from photomask.zoo.models import VisionTransformer

WORDS = 50
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 32,
}


def program_of(model: nn.Module, recipe: str, samples: Tensor) -> IntegerProgram:
    prepared = prepare(model.eval(), load_recipe(recipe), samples[:1])
    calibrate(prepared, samples)
    return convert(prepared, load_target("asic"))


def compare(program: IntegerProgram, sample: Tensor, folder: Path, shared: Path) -> None:
    """Runs a program in RTL, on the narrow array that all tests share."""
    export(program, folder, program.quantize_input(sample), form=RtlForm(accelerator=NARROW))
    report = simulate(folder, simulator=built(shared / "rtl-test-4x4", NARROW))
    assert report.passed, str(report.first_mismatch)
    cycles = {layer.step: layer.rtl_cycles for layer in report.layers if layer.passes}
    assert cycles == model_cycles(program, NARROW)


@pytest.mark.parametrize("recipe", ["w8a8", "w8a8-symmetric"])
def test_a_vision_transformer(recipe: str, tmp_path_factory, tmp_path: Path):
    torch.manual_seed(0)
    model = VisionTransformer(image_size=8, width=18, depth=1, heads=3, hidden=36, classes=7)
    images = torch.randn(8, 1, 8, 8)
    program = program_of(model, recipe, images)
    kinds = {step.operator.kind for step in program.steps}
    assert {"convolution", "normalize", "linear", "matmul", "softmax"} <= kinds
    compare(program, images[:1], tmp_path / "rtl", shared_folder(tmp_path_factory))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Llama", "Bert"])
def test_a_model_of_tokens(kind: str, tmp_path_factory, tmp_path: Path):
    torch.manual_seed(0)
    if kind == "Llama":
        config = transformers.LlamaConfig(num_key_value_heads=1, use_cache=False, **SIZES)
        model = transformers.LlamaForCausalLM(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**SIZES))
    texts = torch.randint(0, WORDS, (4, 6))
    program = program_of(FirstOutput(model), "w8a8", texts)
    assert "embedding" in {step.operator.kind for step in program.steps}
    compare(program, texts[:1], tmp_path / "rtl", shared_folder(tmp_path_factory))

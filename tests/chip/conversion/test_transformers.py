"""Transformers of a library, float to integers that all engines agree on."""

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import codes_of, outputs_of, signal_to_noise
from torch import Tensor, nn

from photomask.chip import IntegerProgram, calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.program import NumpyEngine
from photomask.chip.quantizers import Quantizer
from photomask.chip.recipe import Recipe
from photomask.errors import TargetError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
VISION = {"image_size": 32, "patch_size": 8, **SMALL}
WORDS = 99


class FirstOutput(nn.Module):
    """A model of the library that returns one tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, return_dict=False)[0]


def vision_transformer() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(**VISION))


def dinov2() -> nn.Module:
    config = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    return transformers.Dinov2Model(transformers.Dinov2Config(**config))


def swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    model = transformers.SwinModel(config)
    for name, parameter in model.named_parameters():
        if "relative_position_bias" in name:
            nn.init.normal_(parameter)
    return model


def bert() -> nn.Module:
    config = transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=64, **SMALL)
    return transformers.BertModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=WORDS, num_key_value_heads=2, use_cache=False, **SMALL
    )
    return transformers.LlamaForCausalLM(config)


MODELS = {
    "ViT": (vision_transformer, 30),
    "DINOv2": (dinov2, 30),
    "Swin": (swin, 28),
    "BERT": (bert, 34),
    "Llama": (llama, 30),
}
"""How each is made, and the least SQNR in dB with random weights."""


def inputs_for(name: str) -> Tensor:
    torch.manual_seed(0)
    if name in ("BERT", "Llama"):
        return torch.randint(0, WORDS, (4, 12))
    return torch.randn(4, 3, 32, 32)


def program_of(model: nn.Module, x: Tensor) -> IntegerProgram:
    prepared = prepare(model, load_recipe("w8a8-residual16"), x[:1])
    calibrate(prepared, [[x]])
    return convert(prepared, load_target("asic"))


@pytest.mark.parametrize("name", MODELS)
def test_transformers_become_integers_that_every_engine_agrees_on(name: str):
    make, least = MODELS[name]
    x = inputs_for(name)
    model = FirstOutput(make()).eval()
    program = program_of(model, x)
    assert signal_to_noise(model, [x], program) > least
    codes = {key: value.numpy() for key, value in codes_of(program, [x]).items()}
    compiled, runtime = CEngine(program, compiler="cc -O1"), OnnxEngine(program)
    found = {"C": dict(compiled.edges(codes)), "ONNX": dict(runtime.edges(codes))}
    for edge, expected in NumpyEngine(program).edges(codes):
        for engine, edges in found.items():
            np.testing.assert_array_equal(edges[edge], expected, err_msg=f"{engine}: {edge}")


class Attending(nn.Module):
    """Attention beside its input, over tokens that are added to its keys and values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(
            16, 4, batch_first=True, add_bias_kv=True, add_zero_attn=True
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x, x, x, need_weights=False)[0]


def test_keys_and_values_that_a_layer_adds_agree_in_every_engine():
    torch.manual_seed(0)
    model, x = Attending().eval(), torch.randn(4, 6, 16)
    program = program_of(model, x)
    assert signal_to_noise(model, [x], program) > 30
    codes = {key: value.numpy() for key, value in codes_of(program, [x]).items()}
    compiled, runtime = CEngine(program, compiler="cc -O1"), OnnxEngine(program)
    found = [dict(engine.edges(codes)) for engine in (compiled, runtime)]
    torch_codes = {key: torch.from_numpy(value) for key, value in codes.items()}
    found.append({key: value.numpy() for key, value in TorchEngine(program).edges(torch_codes)})
    for edge, expected in NumpyEngine(program).edges(codes):
        for edges in found:
            np.testing.assert_array_equal(edges[edge], expected, err_msg=edge)


class Windows(nn.Module):
    """Attention of two windows, each with a mask of its own."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.mask = torch.zeros(2, 1, 6, 6)
        self.mask[0, :, :, 4:] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x.reshape(-1, 6, 16)).reshape(-1, 6, 3, 4, 4)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mask = self.mask.repeat(len(x), 1, 1, 1)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, mask)
        return seen.transpose(1, 2).reshape(len(x), 12, 16)


def test_windows_with_masks_of_their_own_stay_close():
    torch.manual_seed(0)
    model, x = Windows().eval(), torch.randn(4, 12, 16)
    prepared = prepare(model, load_recipe("w8a8"), x[:1])
    calibrate(prepared, x)
    assert signal_to_noise(model, [x], convert(prepared, load_target("asic"))) > 25


def test_a_norm_of_large_gains_and_biases_keeps_both():
    norm = nn.LayerNorm(16)
    with torch.no_grad():
        norm.weight.copy_(torch.logspace(-6, 2, 16))
        norm.bias.copy_(torch.linspace(-50, 50, 16))
    x = torch.randn(32, 5, 16)
    fine = Recipe(name="fine", activation=Quantizer(16, symmetric=False))
    prepared = prepare(norm, fine, x[:1])
    calibrate(prepared, x)
    program = convert(prepared, load_target("asic"))
    assert signal_to_noise(norm, [x], program) > 60


def test_integer_inputs_that_choose_no_rows_are_refused():
    class Shifted(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids.reshape(len(ids), 2, 3)

    ids = torch.randint(0, 9, (2, 6))
    prepared = prepare(Shifted(), Recipe(), ids)
    with pytest.raises(TargetError, match="neither the indices of an embedding nor a mask"):
        convert(prepared, load_target("asic"))


def test_rows_outside_the_table_are_refused():
    x = inputs_for("BERT")
    program = program_of(FirstOutput(bert()).eval(), x)
    codes = {program.inputs[0]: np.full((1, 12), WORDS, dtype=np.int64)}
    with pytest.raises(Exception, match="outside 0 to 98"):
        NumpyEngine(program).run(codes)


def test_a_causal_model_ignores_what_comes_later():
    x = inputs_for("Llama")
    program = program_of(FirstOutput(llama()).eval(), x)
    name, output = program.inputs[0], program.outputs[0]
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % WORDS
    engine = NumpyEngine(program)
    first, second = (engine.run({name: ids.numpy()})[output] for ids in (x, changed))
    assert np.array_equal(first[:, :6], second[:, :6])
    assert not np.array_equal(first[:, 6:], second[:, 6:])


def test_the_prepared_model_computes_what_the_program_will():
    x = inputs_for("ViT")
    model = FirstOutput(vision_transformer()).eval()
    prepared = prepare(model, load_recipe("w8a8-residual16"), x[:1])
    calibrate(prepared, x)
    program = convert(prepared, load_target("asic"))
    codes = {program.inputs[0]: program.quantize_input(x).numpy()}
    integers = NumpyEngine(program).run(codes)[program.outputs[0]]
    real = program.edges[program.outputs[0]].dequantize(torch.from_numpy(integers))
    with torch.no_grad():
        fake = prepared(x)[0].double()
    noise, signal = (fake - real).square().sum(), outputs_of(model, [x])[0].double().square().sum()
    assert 10 * torch.log10(signal / noise) > 40


class Padded(nn.Module):
    """A model of the library that takes tokens and which of them are no padding."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(ids, attention_mask=mask, return_dict=False)[0]


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_padding_is_a_second_input_that_nothing_looks_at(name: str):
    ids, mask = inputs_for(name), torch.ones(4, 12, dtype=torch.int64)
    mask[1, 7:], mask[2, 3:] = 0, 0
    model = Padded(MODELS[name][0]()).eval()
    prepared = prepare(model, load_recipe("w8a8-residual16"), [ids[:1], mask[:1]])
    calibrate(prepared, [[ids, mask]])
    program = convert(prepared, load_target("asic"))
    assert signal_to_noise(model, [ids, mask], program) > 25
    changed = torch.where(mask == 1, ids, (ids + 1) % WORDS)
    engine, output = NumpyEngine(program), program.outputs[0]
    first, second = (
        engine.run({"ids": tokens.numpy(), "mask": mask.numpy()})[output]
        for tokens in (ids, changed)
    )
    kept = mask.numpy() == 1
    assert np.array_equal(first[kept], second[kept])
    codes = {"ids": ids.numpy(), "mask": mask.numpy()}
    for other in (CEngine(program, compiler="cc -O1"), OnnxEngine(program)):
        assert np.array_equal(other.run(codes)[output], first)

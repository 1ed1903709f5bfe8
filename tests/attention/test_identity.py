"""Identities: the same model whatever its dtype, another one whatever its shape."""

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.attention.random_statistics import identity
from tests.attention.tiny_models import tiny_model
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from photomask.attention.identity import identify
from photomask.errors import UsageError


def tiny(**text: object) -> Qwen2_5_VLForConditionalGeneration:
    """A random Qwen2.5-VL of 2 layers, 4 heads and 2 kv heads of 16, its weights on bfloat16."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [2, 3, 3],
            "rope_theta": 10000.0,
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
    }
    config = Qwen2_5_VLConfig(text_config=sizes | text, vision_config=vision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Qwen2_5_VLForConditionalGeneration(config).bfloat16().float().eval()


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLForConditionalGeneration:
    return tiny()


def test_the_identity_tells_the_shape_of_the_text_tower(model):
    found = identify(model)
    assert found.model_type == "qwen2_5_vl"
    assert (found.layers, found.heads, found.kv_heads) == (2, 4, 2)
    assert (found.head_size, found.hidden_size, found.vocabulary) == (16, 64, 300)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_does_not_matter(model, dtype):
    assert identify(copy.deepcopy(model).to(dtype)) == identify(model)


def test_rounding_to_bfloat16_does_not_matter(model):
    other = copy.deepcopy(model)
    weight = other.model.language_model.layers[0].self_attn.q_proj.weight
    weight.data *= 1 + 2.0**-12
    assert identify(other) == identify(model)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj", "o_proj"])
def test_other_weights_have_another_fingerprint(model, name):
    other = copy.deepcopy(model)
    getattr(other.model.language_model.layers[1].self_attn, name).weight.data *= 1.02
    found = identify(other)
    assert found.fingerprint != identify(model).fingerprint
    (difference,) = identify(model).differences(found)
    assert "other weights or another revision" in difference


def test_exchanged_layers_have_another_fingerprint(model):
    other = copy.deepcopy(model)
    layers = other.model.language_model.layers
    layers[0], layers[1] = layers[1], layers[0]
    assert identify(other) != identify(model)


def test_another_architecture_is_told_by_field(model):
    differences = identify(model).differences(identify(tiny(num_key_value_heads=4)))
    assert differences == ["kv_heads: 2, 4"]


def test_the_same_model_has_no_differences(model):
    assert identify(model).differences(identify(tiny())) == []


def test_a_model_without_text_tower_is_refused():
    with pytest.raises(UsageError, match="Linear has no text tower"):
        identify(torch.nn.Linear(2, 2))


def test_weights_that_are_not_loaded_are_refused(model):
    with torch.device("meta"):
        empty = Qwen2_5_VLForConditionalGeneration(model.config)
    with pytest.raises(UsageError, match=r"parameter \S+ has no values"):
        identify(empty)


class Halved(torch.Tensor):
    """A quantized tensor, as packages make them: it refuses everything but to be dequantized."""

    codes: torch.Tensor

    @staticmethod
    def __new__(cls, codes: torch.Tensor) -> "Halved":
        made = torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)
        made.codes = codes
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride) -> "Halved":
        return Halved(parts["codes"])

    def dequantize(self) -> torch.Tensor:
        return self.codes.float() / 2

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].codes)
        raise NotImplementedError(func)


def test_a_quantized_weight_is_identified_by_what_its_codes_stand_for():
    model = copy.deepcopy(tiny_model("internvl"))
    layer: Any = model.model.vision_tower.encoder.layer[0].attention.q_proj
    codes = (layer.weight.detach() * 2).round()
    layer.weight = nn.Parameter(codes / 2)
    expected = identify(model)
    layer.weight = nn.Parameter(Halved(codes), requires_grad=False)
    assert identify(model) == expected
    layer.weight = nn.Parameter(Halved(codes + 1), requires_grad=False)
    assert identify(model) != expected


@pytest.mark.parametrize("kv_heads", [3, 8])
def test_heads_that_cannot_share_keys_evenly_are_no_identity(kv_heads: int):
    with pytest.raises(ValidationError, match=f"4 heads cannot share {kv_heads} key"):
        identity(heads=4, kv_heads=kv_heads)

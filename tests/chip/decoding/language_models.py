"""Small language models, and their programs for chunks of several lengths."""

from functools import cache

import numpy as np
import pytest
import torch

from photomask.chip import IntegerProgram, calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.decoding import CachedModel, prepare_like

transformers = pytest.importorskip("transformers")

WORDS, CACHE = 50, 16


def llama(**changes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        **{"eos_token_id": None} | changes,
    )
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=CACHE, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config).eval()


MODELS = {"Llama": llama, "GPT-2": gpt2}


def texts(count: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, WORDS, (count, length))


@cache
def programs(name: str, lengths: tuple[int, ...]) -> tuple[IntegerProgram, ...]:
    """Returns the programs of a model, calibrated once, for chunks of these lengths."""
    model = CachedModel(MODELS[name](), positions=CACHE)
    data = model.first_chunk(torch.from_numpy(texts(8, 12)), CACHE)
    first = prepare(model, load_recipe("w8a8-residual16"), data, states=model.states)
    calibrate(first, [data])
    chunks = [
        prepare_like(first, model, model.first_chunk(torch.zeros(1, n, dtype=torch.int64), CACHE))
        for n in lengths
    ]
    return tuple(convert(prepared, load_target("asic")) for prepared in chunks)

"""A Llama that writes in integers: a prompt in chunks, then tokens one by one, with a cache."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from photomask import chip
from photomask.chip.decoding import CachedModel, Decoder, prepare_like

CACHE = 32  # tokens

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=100,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
    eos_token_id=None,
)
llama = LlamaForCausalLM(config).eval()  # put your trained model here
model = CachedModel(llama, positions=CACHE)
texts = torch.randint(0, 100, (16, 12))

# One calibration, and one program for each length of a chunk: 8 tokens for prompts, 1 to write.
chunk = model.first_chunk(texts[:1, :8], CACHE)
prompts = chip.prepare(model, chip.load_recipe("w8a8-residual16"), chunk, states=model.states)
chip.calibrate(prompts, [model.first_chunk(texts[:, :8], CACHE)])
steps = prepare_like(prompts, model, model.first_chunk(texts[:1, :1], CACHE))
programs = [chip.convert(prepared, chip.load_target("asic")) for prepared in (prompts, steps)]

decoder = Decoder(*programs, engine=chip.TorchEngine)
written = decoder.generate(texts[:2].numpy(), 8)
print("integers:", written.tolist())

expected = llama.generate(texts[:2], max_new_tokens=8, do_sample=False, pad_token_id=0)[:, 12:]
print("float:   ", expected.tolist())

# Another engine, and another way of cutting the text: the same integers.
text = np.concatenate([texts[:2].numpy(), written], axis=1)
decoder.reset()
whole = decoder.feed(text)
oracle = Decoder(programs[1], engine=chip.NumpyEngine)
parts = [oracle.feed(text[:, at : at + 1]) for at in range(text.shape[1])]
assert np.array_equal(whole, np.concatenate(parts, axis=1))

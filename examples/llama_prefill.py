"""A Llama in integers: rotary positions, grouped heads, gated layers and root-mean-square norms."""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from photomask.chip import (
    CEngine,
    NumpyEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)


class Logits(nn.Module):
    """Scores of the next token behind each token of a prompt."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, use_cache=False).logits


torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=100,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
)
model = Logits(LlamaForCausalLM(config)).eval()  # put your trained model here
tokens = torch.randint(0, 100, (16, 12))

prepared = prepare(model, load_recipe("w8a8-residual16"), tokens[:1])
calibrate(prepared, tokens)
program = convert(prepared, load_target("asic"))

codes = {program.inputs[0]: tokens[:2].numpy()}
exact = NumpyEngine(program).run(codes)[program.outputs[0]]
compiled = CEngine(program).run(codes)[program.outputs[0]]
assert np.array_equal(exact, compiled), "compiled C gives the same integers"

logits = program.edges[program.outputs[0]].dequantize(torch.from_numpy(exact))
same = (logits.argmax(dim=-1) == model(tokens[:2]).argmax(dim=-1)).double().mean()
print(f"{len(program.steps)} integer steps; {100 * float(same):.0f} % of the next tokens agree")

"""BERT in integers: tokens and which of them are no padding are the inputs of the program."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from photomask.chip import (
    OnnxEngine,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)


class Hidden(nn.Module):
    """The last hidden state; its mean over the tokens would be a sentence's embedding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model(tokens, attention_mask=mask).last_hidden_state


torch.manual_seed(0)
config = BertConfig(
    vocab_size=100,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
)
model = Hidden(BertModel(config)).eval()  # put your trained model here
tokens, mask = torch.randint(0, 100, (16, 12)), torch.ones(16, 12, dtype=torch.int64)
mask[8:, 7:] = 0  # shorter sentences

prepared = prepare(model, load_recipe("w8a8-residual16"), [tokens[:1], mask[:1]])
calibrate(prepared, [[tokens, mask]])
program = convert(prepared, load_target("asic"))

inputs = {"tokens": tokens, "mask": mask}  # integers are codes already
output = program.outputs[0]
fast = TorchEngine(program).run(inputs)[output]
runtime = OnnxEngine(program).run({name: x.numpy() for name, x in inputs.items()})[output]
assert torch.equal(fast, torch.from_numpy(runtime)), "ONNX Runtime gives the same integers"

hidden = program.edges[output].dequantize(fast)
expected = model(tokens, mask).double()
similarity = nn.functional.cosine_similarity(hidden, expected, dim=-1)[mask == 1]
print(f"{len(program.steps)} integer steps; cosine with float at least {similarity.min():.5f}")

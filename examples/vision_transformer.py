"""A vision transformer of Hugging Face becomes integers; the residual stream keeps 16 bits."""

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from photomask.chip import NumpyEngine, calibrate, convert, load_recipe, load_target, prepare


class Logits(nn.Module):
    """A program returns tensors; the library's models return objects that hold them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


torch.manual_seed(0)
config = ViTConfig(
    image_size=32,
    patch_size=8,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=96,
    num_labels=10,
)
model = Logits(ViTForImageClassification(config)).eval()  # put your trained model here
images = torch.randn(16, 3, 32, 32)

prepared = prepare(model, load_recipe("w8a8-residual16"), images[:1])
calibrate(prepared, images)
program = convert(prepared, load_target("asic"))

codes = program.quantize_input(images)
integers = NumpyEngine(program).run({program.inputs[0]: codes.numpy()})[program.outputs[0]]
logits = program.edges[program.outputs[0]].dequantize(torch.from_numpy(integers))
with torch.no_grad():
    expected = model(images).double()
noise = (logits - expected).square().sum() / expected.square().sum()
print(f"{len(program.steps)} integer steps, noise {10 * float(noise.log10()):.1f} dB")
for kind in ("softmax", "normalize", "lookup"):
    count = sum(step.operator.kind == kind for step in program.steps)
    print(f"{count} steps compute {kind}")

"""Any float model in, an integer program and its export out."""

import torch
from torch import Tensor, nn

from photomask.chip import (
    NumpyEngine,
    TorchEngine,
    calibrate,
    check_export,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)


class KeywordSpotter(nn.Module):
    """Put your own model here; nothing below knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(40, 16, 9, padding=4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2)
        )
        self.depthwise = nn.Conv1d(16, 16, 5, padding=2, groups=16)
        self.classifier = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x + nn.functional.silu(self.depthwise(x))
        return self.classifier(x.mean(dim=2))


torch.manual_seed(0)
model = KeywordSpotter().eval()
recordings = torch.randn(64, 40, 100)  # put your calibration data here

prepared = prepare(model, load_recipe("w8a8"), recordings[:1])
calibrate(prepared, recordings)
program = convert(prepared, load_target("asic"))
print(program)

codes = program.quantize_input(recordings[:8])
fast = TorchEngine(program).run({program.inputs[0]: codes})[program.outputs[0]]
exact = NumpyEngine(program).run({program.inputs[0]: codes.numpy()})[program.outputs[0]]
assert torch.equal(fast, torch.from_numpy(exact)), "two engines, one program, the same integers"

logits = program.edges[program.outputs[0]].dequantize(fast)
print(f"largest difference to float: {(logits - model(recordings[:8])).abs().max():.4f}")

export(program, "out/keyword_spotter", codes, samples=2)
print(check_export("out/keyword_spotter"))

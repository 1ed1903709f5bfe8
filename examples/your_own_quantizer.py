"""A quantizer of your own is a class with one method; it reaches the memory images unchanged."""

import torch
from torch import Tensor, nn

from photomask.chip import (
    Quantizer,
    Recipe,
    TorchEngine,
    calibrate,
    check_quantizer,
    convert,
    load_target,
    prepare,
)
from photomask.chip.quantizers import PerChannel


class PowersOfTwo(Quantizer):
    """Codes 0, ±1, ±2, ±4 … ±64: on the chip, every multiplication is a shift."""

    def fit(self) -> None:
        super().fit()
        self.set_parameters(self.format, 2 * self.scale, self.zero_point)  # 64 is the largest

    def quantize(self, x: Tensor) -> Tensor:
        codes = super().quantize(x)
        exponent = codes.abs().clamp(min=1).log2().round().clamp(max=self.bits - 2)
        return codes.sign() * exponent.exp2()


shifts_only = PowersOfTwo(8, granularity=PerChannel(), narrow=True)
check_quantizer(shifts_only)  # raises and names the law, should the class break one

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)
).eval()
images = torch.randn(32, 3, 16, 16)

prepared = prepare(model, Recipe(name="shifts", weight=shifts_only), images[:1])
calibrate(prepared, images)
program = convert(prepared, load_target("asic"))

for name, tensor in program.tensors.items():
    if name.endswith(".weight"):
        print(f"{name}: codes {sorted(set(tensor.flatten().tolist()))}")
codes = {program.inputs[0]: program.quantize_input(images)}
outputs = program.edges[program.outputs[0]].dequantize(
    TorchEngine(program).run(codes)[program.outputs[0]]
)
expected = model(images)
noise = (outputs - expected).square().mean() / expected.square().mean()
print(f"signal to noise ratio: {-10 * noise.log10():.1f} dB")

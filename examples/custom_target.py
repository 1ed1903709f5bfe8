"""Your chip's numerics as data, and what a narrower multiplier costs."""

from dataclasses import replace

import torch
from torch import nn

from photomask.chip import TorchEngine, calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.target import Rounding, Target

my_chip = Target(
    name="my-chip",
    rounding=Rounding.HALF_AWAY,
    multiplier_bits=12,
    accumulator_bits=24,
    bias_bits=24,
    memory_word_bits=64,
    activation_layout="channels_last",
)
print(my_chip.render())  # save it as my_chip.json; load_target("my_chip.json") reads it

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU()
).eval()
images = torch.randn(16, 3, 16, 16)
recipe = replace(load_recipe("w8a8"), output_bits=8)
prepared = prepare(model, recipe, images[:1])
calibrate(prepared, images)


def run(target: Target) -> torch.Tensor:
    """Returns the output codes under a target."""
    program = convert(prepared, target)
    codes = {program.inputs[0]: program.quantize_input(images)}
    return TorchEngine(program).run(codes)[program.outputs[0]]


reference = run(load_target("asic").model_copy(update={"multiplier_bits": 30}))
print("multiplier bits  codes that differ from 30 bits  largest difference")
for bits in (4, 6, 8, 12, 16):
    target = my_chip.model_copy(update={"multiplier_bits": bits, "rounding": Rounding.HALF_UP})
    difference = (run(target) - reference).abs()
    share = 100 * float((difference > 0).double().mean())
    print(f"{bits:15}  {share:28.3f} %  {int(difference.max()):18}")

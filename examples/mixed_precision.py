"""Four-bit weights where they cost little: rules by name, pattern or operator."""

import torch

from photomask import zoo
from photomask.chip import (
    IntegerProgram,
    Quantizer,
    Recipe,
    Rule,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.observers import MSE
from photomask.chip.quantizers import PerChannel

four_bits = Quantizer(4, granularity=PerChannel(), observer=MSE(), narrow=True)
mixed = Recipe(
    name="mixed",
    rules=(
        Rule(r"re:blocks\.[678]\..*", weight=four_bits),  # three quarters of the weights
        Rule("operator:add", activation=Quantizer(12, symmetric=False)),
    ),
    keep=("first", "last"),
)

model = zoo.load("resnet20")
calibration, _ = zoo.calibration_set()
images, labels = (tensor[:256] for tensor in zoo.test_set())


def top1(program: IntegerProgram) -> float:
    """Returns the accuracy on the first test images, in percent."""
    codes = {program.inputs[0]: program.quantize_input(images)}
    scores = TorchEngine(program).run(codes)[program.outputs[0]]
    return 100 * float((scores.argmax(dim=1) == labels).float().mean())


with torch.no_grad():
    print(f"float: {100 * float((model(images).argmax(dim=1) == labels).float().mean()):.1f} %")
for recipe in (load_recipe("w8a8-minmax"), mixed):
    prepared = prepare(model, recipe, calibration[:1])
    calibrate(prepared, calibration[:64])
    program = convert(prepared, load_target("asic"))
    print(recipe)
    print(f"  {program.weight_bytes() / 1024:.0f} KiB, top-1 {top1(program):.1f} %\n")

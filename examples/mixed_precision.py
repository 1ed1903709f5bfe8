"""As many bits of weights as with four everywhere, but where the network needs them."""

import torch

from photomask import zoo
from photomask.chip import (
    IntegerProgram,
    Recipe,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.mixed_precision import (
    allocate,
    measure_sensitivity,
    uniform_cost,
    weight_bit_costs,
)

model = zoo.load("resnet20")
calibration, _ = zoo.calibration_set()
images, labels = (tensor[:256] for tensor in zoo.test_set())
with torch.no_grad():
    scores = model(images).double()


def program_of(recipe: Recipe) -> IntegerProgram:
    """Returns the model as integers."""
    prepared = prepare(model, recipe, calibration[:1])
    calibrate(prepared, calibration[:64])
    return convert(prepared, load_target("asic"))


def report(name: str, program: IntegerProgram) -> None:
    """Prints size, signal over noise of the scores, and accuracy, on images never seen before."""
    edge = program.edges[program.outputs[0]]
    codes = {program.inputs[0]: program.quantize_input(images)}
    found = edge.dequantize(TorchEngine(program).run(codes)[edge.name]).double()
    decibels = 10 * torch.log10(scores.square().sum() / (scores - found).square().sum())
    top1 = 100 * (found.argmax(dim=1) == labels).float().mean()
    print(f"{name:<10} {program.weight_bytes() / 1024:.0f} KiB, {decibels:.1f} dB, {top1:.1f} %")


uniform = load_recipe("w4a8")
prepared = prepare(model, uniform, calibration[:1])
sensitivities = measure_sensitivity(prepared, calibration[:32], measure="output_mse")
costs = weight_bit_costs(prepared, sensitivities)
allocation = allocate(prepared, sensitivities, costs, uniform_cost(sensitivities, costs, 4))
print(allocation, end="\n\n")

report("four bits", program_of(uniform))
report("mixed", program_of(allocation.recipe(prepared)))

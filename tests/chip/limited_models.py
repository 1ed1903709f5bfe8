"""A small model whose sums are limited, and the worst inputs that its layers can get."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip import IntegerProgram, PreparedModel, Quantizer, Recipe, calibrate, prepare
from photomask.chip.operators import Convolution, Linear
from photomask.chip.quantizers import PerChannel
from photomask.chip.target import Target


class Small(nn.Module):
    """Two convolutions and a linear layer with biases; the last layer reads signed values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.head(self.second(x).flatten(2)[:, :, 0])


def images(count: int = 16) -> Tensor:
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1)) + 0.2


def small_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


def narrow(accumulator_bits: int) -> Target:
    bits = min(32, accumulator_bits)
    return Target(name="narrow", accumulator_bits=accumulator_bits, bias_bits=bits)


def small_recipe(
    weight: Quantizer | None = None, *, symmetric: bool = False, activation_bits: int = 4
) -> Recipe:
    weight = weight or Quantizer(4, granularity=PerChannel(), narrow=True)
    activation = Quantizer(activation_bits, symmetric=symmetric)
    return Recipe(weight=weight, activation=activation, output_bits=8)


def prepared_small(
    weight: Quantizer | None = None,
    target: Target | None = None,
    *,
    symmetric: bool = False,
    activation_bits: int = 4,
) -> PreparedModel:
    asked = small_recipe(weight, symmetric=symmetric, activation_bits=activation_bits)
    prepared = prepare(small_model(), asked, images(1), target=target)
    return calibrate(prepared, images())


def worst_sums(program: IntegerProgram) -> dict[str, tuple[int, int]]:
    """The least and the largest partial sums of each layer, by trying the worst input codes.

    For each output channel, each weight meets the input code that makes its product smallest or
    largest, or no input at all; the bias may or may not have been added yet.
    """
    found = {}
    for step in program.steps:
        if not isinstance(step.operator, Convolution | Linear):
            continue
        tensors = {role: program.tensors[name] for role, name in step.tensors.items()}
        weight = tensors["weight"].astype(object)
        if "weight_zero_point" in tensors:
            raise AssertionError("these models have no zero points of weights")
        edge = program.edges[step.inputs[0]]
        lows, highs = [], []
        for row, bias in zip(weight.reshape(len(weight), -1), tensors["bias"], strict=True):
            codes = (edge.low, edge.high, 0)
            products = [[int(w) * int(code) for code in codes] for w in row]
            starts = (0, int(bias))
            lows.append(min(starts) + sum(min(options) for options in products))
            highs.append(max(starts) + sum(max(options) for options in products))
        found[step.name] = min(lows), max(highs)
    return found


def worst_inputs(program: IntegerProgram) -> np.ndarray:
    """Codes of the first input that are extreme by the sign of each weight of the first layer."""
    step = next(step for step in program.steps if isinstance(step.operator, Convolution))
    weight = program.tensors[step.tensors["weight"]]
    edge = program.edges[program.inputs[0]]
    samples = []
    for channel, sign in itertools.product(range(len(weight)), (1, -1)):
        codes = np.full(edge.shape[1:], edge.zero_point, dtype=np.int64)
        codes[:, 1:4, 1:4] = np.where(sign * weight[channel] > 0, edge.high, edge.low)
        samples.append(codes)
    return np.stack(samples)

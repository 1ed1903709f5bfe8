"""Every quantizer of the field, from calibration over training to the integers of a program."""

from dataclasses import replace

import pytest
import torch
from tests.chip.conversion.flow import assert_engines_agree, randomize
from torch import Tensor, nn

from photomask.chip import PreparedModel, Recipe, calibrate, convert, load_target
from photomask.chip.calibration import fit_biases
from photomask.chip.graph import FloatGraph, capture, simplify
from photomask.chip.placement import place
from photomask.chip.quantizers import (
    LSQ,
    PACT,
    RCF,
    SAWB,
    TQT,
    APoT,
    Binary,
    DoReFa,
    DoReFaActivation,
    LSQPlus,
    PerChannel,
    Quantizer,
    Ternary,
    used_codes,
)
from photomask.chip.target import Rounding, Target
from photomask.errors import QuantizerError, TargetError

CHANNELS = {"granularity": PerChannel()}
WEIGHTS = {
    "lsq": LSQ(4, narrow=True, **CHANNELS),
    "lsq two bits": LSQ(2, narrow=True),
    "lsq+": LSQPlus(4, narrow=True, **CHANNELS),
    "pact": PACT(4, narrow=True, **CHANNELS),
    "sawb": SAWB(4),
    "sawb channels": SAWB(2, **CHANNELS),
    "rcf": RCF(4, narrow=True, **CHANNELS),
    "apot": APoT(4),
    "apot channels": APoT(3, **CHANNELS),
    "tqt": TQT(4, **CHANNELS),
    "dorefa": DoReFa(4),
    "binary": Binary(),
    "ternary": Ternary(),
}
ACTIVATIONS = {
    "lsq": LSQ(4, symmetric=False),
    "lsq symmetric": LSQ(4),
    "lsq+": LSQPlus(4, symmetric=False),
    "lsq+ signed": LSQPlus(4, symmetric=False, signed=True),
    "pact": PACT(4),
    "rcf": RCF(4),
    "tqt": TQT(4),
    "dorefa": DoReFaActivation(4),
}
# Ties, which powers of two make often, are rounded as the quantizers round them.
EVEN = Target(
    name="even",
    rounding=Rounding.HALF_EVEN,
    accumulator_bits=44,
    bias_bits=44,
    multiplier_bits=19,
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph(images: Tensor) -> FloatGraph:
    torch.manual_seed(1)
    return simplify(capture(randomize(Small()), images[:1]))


def trained(graph: FloatGraph, recipe: Recipe, images: Tensor) -> PreparedModel:
    """Calibrated, then trained for a few steps towards labels that mean nothing."""
    prepared = PreparedModel(place(graph, recipe))
    calibrate(prepared, images)
    before = [parameter.detach().clone() for parameter in prepared.parameters()]
    labels = torch.arange(len(images)) % 5
    optimizer = torch.optim.SGD(prepared.train().parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(images)[0], labels).backward()
        optimizer.step()
    changed = [
        not torch.equal(parameter, old)
        for parameter, old in zip(prepared.parameters(), before, strict=True)
    ]
    assert sum(changed) >= 4  # weights and biases; learned scales of edges that nobody reads stay
    fit_biases(prepared.eval())
    round_biases(prepared)
    return prepared


def round_biases(prepared: PreparedModel) -> None:
    """Makes biases whole accumulator units, as in the program; few bits make those coarse."""
    for node in prepared.graph.nodes:
        if "weight" in node.constants:
            bias = prepared.constants_of(node)["bias"]
            unit = prepared.weight_quantizer(node.name).scale.detach().double()
            unit = unit * prepared.activation_quantizer(node.inputs[0]).scale.detach()
            bias.data = ((bias.double() / unit).round() * unit).float()


def assert_integers_are_what_was_trained(prepared: PreparedModel, images: Tensor) -> None:
    """No mismatch between the engines; the fake path differs by roundings of rescaling alone."""
    program = convert(prepared, EVEN)
    integers = assert_engines_agree(program, [images])
    names = [node.name for node in prepared.graph.nodes if node.name in program.edges]
    prepared.graph = replace(prepared.graph, outputs=tuple(names))
    with torch.no_grad():
        fake = dict(zip(names, prepared(images), strict=True))
    for position, name in enumerate(names):
        edge = program.edges[name]
        codes = (fake[name].double() / edge.scale[0] + edge.zero_point).round()
        different = codes != integers[name]
        if position < 2:  # the input is exact; the first layer may round ties to a neighbour
            assert (codes - integers[name]).abs().max() <= position, name
        if edge.format.bits < 16:
            assert different.double().mean() < 0.01, name
    logits = fake[program.outputs[0]]
    found = integers[program.outputs[0]].double() * program.edges[program.outputs[0]].scale[0]
    assert (found.argmax(1) == logits.argmax(1)).double().mean() > 0.9


@pytest.mark.parametrize("name", WEIGHTS)
def test_trained_weights_become_the_integers_of_the_program(
    name: str, graph: FloatGraph, images: Tensor
):
    recipe = Recipe(weight=WEIGHTS[name], activation=LSQ(6, symmetric=False))
    prepared = trained(graph, recipe, images)
    for node in graph.nodes:
        if "weight" in node.constants:
            quantizer = prepared.weight_quantizer(node.name)
            codes = quantizer.quantize(prepared.constants_of(node)["weight"]).detach()
            assert set(codes.unique().tolist()) <= set(used_codes(quantizer))
    assert_integers_are_what_was_trained(prepared, images)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_trained_activations_become_the_integers_of_the_program(
    name: str, graph: FloatGraph, images: Tensor
):
    weight = Quantizer(4, granularity=PerChannel(), narrow=True)
    recipe = Recipe(weight=weight, activation=ACTIVATIONS[name])
    assert_integers_are_what_was_trained(trained(graph, recipe, images), images)


class Even(Quantizer):
    """Uses every second code."""

    def quantize(self, x: Tensor) -> Tensor:
        return (super().quantize(x) / 2).round() * 2


class DeadZone(Quantizer):
    """Uses every code, but rounds in its own way."""

    def quantize(self, x: Tensor) -> Tensor:
        return super().quantize(x).masked_fill(x.abs() < 0.75 * self.scale_for(x), 0)


@pytest.mark.parametrize("activation", [Even(4), DeadZone(4), Quantizer(4, narrow=True)])
def test_activations_that_rescaling_cannot_compute_do_not_convert(
    activation: Quantizer, graph: FloatGraph, images: Tensor
):
    prepared = PreparedModel(place(graph, Recipe(activation=activation)))
    calibrate(prepared, images)
    with pytest.raises(QuantizerError, match=r"output of .* nearest code of int4"):
        convert(prepared, EVEN)


def test_learned_powers_of_two_convert_where_only_shifts_are_possible(
    graph: FloatGraph, images: Tensor
):
    recipe = Recipe(weight=TQT(4, narrow=True), activation=TQT(8, signed=True))
    prepared = trained(graph, recipe, images)
    for name in ("stem.0", "body.0"):  # as if training had made the outputs far too fine
        prepared.activation_quantizer(name).get_parameter("log2_threshold").data.sub_(12)
    with pytest.raises(TargetError, match="below the target's shift_min"):
        convert(prepared, load_target("max78000"))
    fit_biases(prepared)
    program = convert(prepared, load_target("max78000"))
    assert_engines_agree(program, [images])

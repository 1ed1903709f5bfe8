"""What operators say about sums and scales holds in every program that is converted."""

from functools import cache

import pytest
import torch
from tests.chip.conversion.flow import FINE, WIDE
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    Recipe,
    Target,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.operators import OPERATORS, Multiply, Requantize, Scaling


class Pictures(nn.Module):
    """Convolutions, poolings, a residual sum, a product of activations, a join."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.classes = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = x + self.second(nn.functional.max_pool2d(x, 2).repeat_interleave(2, -1).mean(-2, True))
        x = x * torch.sigmoid(nn.functional.avg_pool2d(x, 2).mean((2, 3), keepdim=True))
        x = nn.functional.pad(torch.cat([x, x.clamp(-0.5, 0.5)], 1), (1, 0), value=0.25)
        return self.classes(x.flip(-1).mean((2, 3)))


class Words(nn.Module):
    """Embeddings, norms, attention."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.places = nn.Parameter(torch.randn(6, 8))
        self.norm = nn.LayerNorm(8)
        self.maps = nn.Linear(8, 24)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.places
        q, k, v = self.maps(self.norm(x)).chunk(3, -1)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1)
        return self.out(nn.functional.gelu((x + weights @ v).reshape(-1, 12, 4)).reshape(-1, 6, 8))


@cache
def pictures() -> IntegerProgram:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    return converted(Pictures().eval(), x, load_recipe("w8a8"), load_target("asic"))


@cache
def words() -> IntegerProgram:
    torch.manual_seed(0)
    return converted(Words().eval(), torch.randint(0, 11, (4, 6)), FINE, WIDE)


@cache
def curve() -> IntegerProgram:
    """A function of more codes than a table has entries."""
    torch.manual_seed(0)
    target = WIDE.model_copy(update={"table_entries": 256})
    return converted(nn.GELU(), torch.randn(4, 6), FINE, target)


def converted(model: nn.Module, x: Tensor, recipe: Recipe, target: Target) -> IntegerProgram:
    prepared = prepare(model, recipe, x[:1])
    calibrate(prepared, x)
    return convert(prepared, target)


@pytest.fixture(scope="module", params=[pictures, words, curve])
def program(request: pytest.FixtureRequest) -> IntegerProgram:
    return request.param()


def test_what_accumulates_is_an_accumulator_and_is_requantized(program: IntegerProgram):
    for step in program.steps:
        edge = program.edges[step.output]
        assert step.operator.accumulates == (edge.role == "accumulator"), step.name
        if step.operator.accumulates:
            readers = program.links.readers[step.output]
            assert readers
            assert all(isinstance(reader.operator, Requantize) for reader in readers)


def test_scales_pass_through_as_operators_say(program: IntegerProgram):
    for step in program.steps:
        inputs, output = [program.edges[name] for name in step.inputs], program.edges[step.output]
        if step.operator.scaling is Scaling.KEPT:
            meanings = {(edge.scale, edge.zero_point) for edge in (*inputs, output)}
            assert len(meanings) == 1, step.name
        elif step.operator.scaling is Scaling.SUMMED:
            assert (output.scale, output.zero_point) == (inputs[0].scale, 0), step.name
        elif step.operator.scaling is Scaling.MULTIPLIED:
            assert output.zero_point == 0, step.name
            if isinstance(step.operator, Multiply):
                a, b = (edge.scale[0] for edge in inputs)
                assert output.scale == pytest.approx((a * b,), rel=1e-6), step.name


def test_the_programs_hold_every_operator():
    kinds = {one.model_fields["kind"].default for one in OPERATORS}
    found = {step.operator.kind for make in (pictures, words, curve) for step in make().steps}
    assert kinds - found == set()

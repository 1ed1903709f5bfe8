"""No single wrong integer, attribute or claim of a program passes verification."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tests.chip.verification.faults import one_of_each_kind
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    Quantizer,
    Recipe,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)
from photomask.chip.graph import capture_simplified
from photomask.chip.quantizers import PerChannel
from photomask.chip.recipe.documents import ActivationDocument, RecipeDocument, RuleDocument
from photomask.chip.target import Target, ZeroPoints
from photomask.chip.verification.expected import expected_program, wrong_values
from photomask.chip.verification.parameters import stray_parameters

FEW = {"oracle_samples": 1, "layer_samples": 2, "multiplier_widths": ()}


class Pictures(nn.Module):
    """Convolutions, pools, moves and sums of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, (1, 2), stride=(1, 2), dilation=(1, 2), groups=2)
        self.head = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.first(F.pad(x, (1, 0, 0, 1), value=0.5)), -0.7, 0.9)
        a = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
        b = F.max_pool2d(x, 3, 2, padding=1)
        c = F.adaptive_avg_pool2d(x, (3, 5))[:, :, :, :4].flip(3)
        x = torch.cat([a * b, torch.sigmoid(c) - a], 3)
        x = self.second(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = x.clamp(-0.4, 0.3) + x.mean((2, 3), keepdim=True) - 0.1 * x.sum(1, keepdim=True)
        x = F.adaptive_avg_pool2d(x, (1, 3))
        return self.head(x.permute(0, 2, 3, 1).flatten(1))


class Words(nn.Module):
    """Rows of a table, positions, norms, a masked attention and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(7, 8)
        self.places = nn.Parameter(torch.randn(1, 4, 8))
        self.norm, self.last = nn.LayerNorm(8), nn.RMSNorm(8)
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 6)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.normal_(self.norm.bias, 0, 0.3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.rows(tokens) + self.places
        y = self.norm(x)
        q, k = self.query(y), self.key(y)
        x = x + F.scaled_dot_product_attention(q, k, y, is_causal=True)
        return self.head(F.silu(self.last(x)) * q)


@dataclass(frozen=True)
class Case:
    """A model, its data, and the program that was made of it."""

    model: nn.Module
    inputs: Tensor
    prepared: PreparedModel
    program: IntegerProgram


def made(model: nn.Module, inputs: Tensor, recipe: Recipe, target: Target) -> Case:
    model.eval()
    prepared = prepare(model, recipe, inputs[:1])
    calibrate(prepared, [inputs])
    return Case(model, inputs, prepared, convert(prepared, target))


ASIC = load_target("asic")
AFFINE = ASIC.model_copy(update={"name": "affine", "zero_points": ZeroPoints.ALL})
LINES = ASIC.model_copy(update={"name": "lines", "table_entries": 64})
AFFINE_WEIGHTS = Recipe(
    name="affine",
    weight=Quantizer(8, symmetric=False, granularity=PerChannel()),
    activation=Quantizer(8, symmetric=False),
)
FACTORS = RecipeDocument(
    name="factors",
    rules=(
        RuleDocument(
            match="norm_inputs",
            activation=ActivationDocument(
                algorithm="power_of_two_factors", bits=12, largest_factor=4
            ),
        ),
    ),
)
CASES = {
    "pictures": (Pictures, load_recipe("w8a8"), ASIC),
    "pictures in lines and groups": (Pictures, load_recipe("w4a8-group"), LINES),
    "pictures of affine weights": (Pictures, AFFINE_WEIGHTS, AFFINE),
    "words with a wide stream": (Words, load_recipe("w8a8-residual16"), ASIC),
    "words with factors": (Words, FACTORS.build(), ASIC),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(3)
    kind, recipe, target = CASES[request.param]
    inputs = torch.randn(16, 2, 5, 6) if kind is Pictures else torch.randint(0, 7, (16, 4))
    return made(kind(), inputs, recipe, target)


@pytest.mark.parametrize("with_prepared", [False, True])
def test_a_right_program_has_no_fault(case: Case, with_prepared: bool):
    prepared = case.prepared if with_prepared else None
    report = verify(case.model, case.program, case.inputs, prepared=prepared, **FEW)
    assert report.passed, report.reasons


def test_every_kind_of_fault_is_found(case: Case):
    """Beside the prepared model, and where nothing but the model is at hand."""
    graph = capture_simplified(case.model, case.inputs[:1])
    right = expected_program(case.program, case.prepared.graph, case.prepared)
    wrong = one_of_each_kind(case.program)
    assert len(wrong) > 40
    for fault, program in wrong.items():
        assert wrong_values(program, right), fault
        strays = sum(found.total for found in stray_parameters(program, graph).values())
        assert strays or wrong_values(program, expected_program(program, graph)), fault

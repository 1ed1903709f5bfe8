"""From a budget to a recipe: costs are those of the real program, the plan beats one width."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from photomask import zoo
from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    Recipe,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.cost import estimate, load_accelerator
from photomask.chip.mixed_precision import (
    Allocation,
    Costs,
    Sensitivities,
    allocate,
    bit_operation_costs,
    cycle_costs,
    measure_sensitivity,
    pareto,
    save_pareto_curve,
    uniform_cost,
    weight_bit_costs,
)
from photomask.chip.mixed_precision.costs import PairCosts
from photomask.chip.mixed_precision.sensitivity import Sensitivity
from photomask.chip.operators import Convolution, Linear
from photomask.errors import DocumentError, RecipeError, TargetError, UsageError


@pytest.fixture(scope="module")
def prepared(small_network: nn.Module, small_images: Tensor) -> PreparedModel:
    return prepare(small_network, load_recipe("w4a8"), small_images[:1])


@pytest.fixture(scope="module")
def sensitivities(prepared: PreparedModel, small_images: Tensor) -> Sensitivities:
    return measure_sensitivity(
        prepared, small_images, weight_bits=(2, 3, 4, 6, 8), activation_bits=(4, 6, 8)
    )


@pytest.fixture(scope="module")
def of_weights(prepared: PreparedModel, small_images: Tensor) -> Sensitivities:
    return measure_sensitivity(prepared, small_images)


def program_of(model: nn.Module, recipe: Recipe, x: Tensor) -> IntegerProgram:
    prepared = prepare(model, recipe, x[:1])
    calibrate(prepared, x)
    return convert(prepared, load_target("asic"))


def decibels_of(model: nn.Module, x: Tensor, program: IntegerProgram) -> float:
    """Returns signal over noise of the integer program's outputs."""
    edge = program.edges[program.outputs[0]]
    codes = TorchEngine(program).run({program.inputs[0]: program.quantize_input(x)})[edge.name]
    with torch.no_grad():
        y = model(x).double()
    noise = (codes - edge.zero_point).double() * edge.scale[0] - y
    return float(10 * torch.log10(y.square().sum() / noise.square().sum()))


def test_weight_bits_are_those_of_the_program(
    small_network: nn.Module,
    prepared: PreparedModel,
    of_weights: Sensitivities,
    small_images: Tensor,
):
    costs = weight_bit_costs(prepared, of_weights)
    assert uniform_cost(of_weights, costs, 4) == 4 * (8 * 27 + 8 * 72 + 5 * 8)
    found = allocate(prepared, of_weights, costs, uniform_cost(of_weights, costs, 4))
    program = program_of(small_network, found.recipe(prepared), small_images)
    bits = sum(
        program.tensors[step.tensors["weight"]].size * program.formats[step.tensors["weight"]].bits
        for step in program.steps
        if isinstance(step.operator, Convolution | Linear)
    )
    assert bits == found.cost <= found.budget


def test_bit_operations_are_those_of_the_program(
    small_network: nn.Module,
    prepared: PreparedModel,
    sensitivities: Sensitivities,
    small_images: Tensor,
):
    """Weights and activations are chosen together, and the product of their widths is counted."""
    costs = bit_operation_costs(prepared, sensitivities)
    assert costs.pairs
    low, high = pareto(sensitivities, costs, points=2)
    found = allocate(prepared, sensitivities, costs, (low.cost + high.cost) // 3)
    program = program_of(small_network, found.recipe(prepared), small_images)
    counts = program.multiply_accumulates()
    total = 0
    for step in program.steps:
        if isinstance(step.operator, Convolution | Linear):
            weight = program.formats[step.tensors["weight"]].bits
            total += counts[step.name] * weight * program.edges[step.inputs[0]].format.bits
    assert total == found.cost <= found.budget


def test_cycles_are_those_of_the_program(
    small_network: nn.Module,
    prepared: PreparedModel,
    of_weights: Sensitivities,
    small_images: Tensor,
):
    slow = load_accelerator("reference").model_copy(update={"memory_bytes_per_cycle": 0.25})
    target = load_target("asic")
    costs = cycle_costs(prepared, of_weights, small_images, target, slow)
    low, high = pareto(of_weights, costs, points=2)
    found = allocate(prepared, of_weights, costs, (low.cost + high.cost) // 2)
    program = program_of(small_network, found.recipe(prepared), small_images)
    assert estimate(program, slow).totals.cycles.total == found.cost <= found.budget


def test_where_cycles_do_not_depend_on_widths_a_budget_in_cycles_is_refused(
    prepared: PreparedModel,
    of_weights: Sensitivities,
    sensitivities: Sensitivities,
    small_images: Tensor,
):
    target, fast = load_target("asic"), load_accelerator("reference")
    fast = fast.model_copy(update={"memory_bytes_per_cycle": 1e9})
    with pytest.raises(TargetError, match="no layer takes fewer cycles"):
        cycle_costs(prepared, of_weights, small_images, target, fast)
    with pytest.raises(UsageError, match="only for the widths of weights"):
        cycle_costs(prepared, sensitivities, small_images, target, fast)


def test_the_curve_falls_and_ends_where_nothing_improves(
    prepared: PreparedModel, sensitivities: Sensitivities
):
    costs = bit_operation_costs(prepared, sensitivities)
    points = pareto(sensitivities, costs, points=12)
    errors = [point.error for point in points]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 100 * errors[-1]
    assert all(point.cost <= point.budget for point in points)
    assert errors[-1] == pytest.approx(sum(min(t.errors) for t in sensitivities.tensors))
    with pytest.raises(UsageError, match="at least 2"):
        pareto(sensitivities, costs, points=1)


def test_an_impossible_budget_names_the_unit(prepared: PreparedModel, of_weights: Sensitivities):
    costs = weight_bit_costs(prepared, of_weights)
    least = f"{uniform_cost(of_weights, costs, 2):,}"
    with pytest.raises(RecipeError, match=rf"costs {least}.*in bits of weights"):
        allocate(prepared, of_weights, costs, 100)
    with pytest.raises(UsageError, match="5 bits are no candidate"):
        uniform_cost(of_weights, costs, 5)
    with pytest.raises(DocumentError, match="other tensors or widths"):
        allocate(prepared, of_weights, Costs(unit="cycles", fixed=0, tensors=()), 100)


def test_an_allocation_survives_a_file_and_an_altered_one_is_refused(
    prepared: PreparedModel, of_weights: Sensitivities, tmp_path: Path
):
    costs = weight_bit_costs(prepared, of_weights)
    found = allocate(prepared, of_weights, costs, uniform_cost(of_weights, costs, 3))
    path = tmp_path / "allocation.json"
    found.save(path)
    assert Allocation.load(path) == found
    assert str(found).splitlines()[2].split()[:2] == ["stem.0", "weight"]
    text = path.read_text()
    path.write_text(text.replace(f'"cost": {found.cost}', f'"cost": {found.cost - 1}'))
    with pytest.raises(DocumentError, match="altered"):
        Allocation.load(path)
    path.write_text(text[:-20])
    with pytest.raises(DocumentError, match=r"allocation\.json"):
        Allocation.load(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bits": (8, 8)}, "field bits holds 2 widths for 3 tensors"),
        ({"bits": (5, 8, 8)}, "field bits: 5 is no candidate for the weight of 'stem.0'"),
        ({"bits": (8, 8, 8)}, "the fields cost and error hold"),
        ({"cost": 1}, "the fields cost and error hold 1 and"),
        ({"error": 0.0}, "the fields cost and error hold"),
        ({"budget": 1}, "exceeds the budget of 1;"),
    ],
)
def test_an_allocation_that_contradicts_itself_is_refused_whatever_its_hash(
    prepared: PreparedModel, of_weights: Sensitivities, tmp_path: Path, change: dict, named: str
):
    costs = weight_bit_costs(prepared, of_weights)
    good = allocate(prepared, of_weights, costs, uniform_cost(of_weights, costs, 3))
    edited = good.model_copy(update=change)
    path = tmp_path / "allocation.json"
    edited.model_copy(update={"content_sha256": edited.fingerprint()}).save(path)
    with pytest.raises(DocumentError, match=named):
        Allocation.load(path)


@pytest.mark.parametrize(("first", "second"), [(0, 9), (-1, 0), (1, 1)])
def test_costs_of_a_pair_of_tensors_that_are_not_there_are_refused(
    prepared: PreparedModel, of_weights: Sensitivities, first: int, second: int
):
    size = len(of_weights.tensors[0].bits)
    pair = PairCosts(first=first, second=second, costs=((1,) * size,) * size)
    costs = weight_bit_costs(prepared, of_weights).model_copy(update={"pairs": (pair,)})
    with pytest.raises(DocumentError, match="other tensors or widths"):
        allocate(prepared, of_weights, costs, 10**9)


@pytest.mark.parametrize(("bits", "errors"), [((2, 4), (0.5,)), ((4, 4), (0.5, 0.1))])
def test_a_sensitivity_has_one_error_for_each_width(bits: tuple, errors: tuple):
    with pytest.raises(ValidationError, match="expected different widths with one error each"):
        Sensitivity(site="stem", role="weight", bits=bits, errors=errors)


def test_the_curve_is_drawn(prepared: PreparedModel, of_weights: Sensitivities, tmp_path: Path):
    costs = weight_bit_costs(prepared, of_weights)
    points = pareto(of_weights, costs, points=5)
    for name in ("curve.svg", "curve.png"):
        save_pareto_curve(of_weights, costs, points, tmp_path / name)
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "curve.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(UsageError, match=r"\.svg, \.png or \.pdf"):
        save_pareto_curve(of_weights, costs, points, tmp_path / "curve.txt")


def test_resnet20_has_less_noise_than_with_four_bits_everywhere():
    """As many bits of weights, measured on images that neither search nor calibration saw."""
    model, (images, _) = zoo.load("resnet20"), zoo.calibration_set()
    unseen = zoo.test_set()[0][:64]
    recipe, x = load_recipe("w4a8"), images[:16]
    prepared = prepare(model, recipe, x[:1])
    found = measure_sensitivity(prepared, images[:8], weight_bits=(3, 4, 6), measure="output_mse")
    costs = weight_bit_costs(prepared, found)
    mixed = allocate(prepared, found, costs, uniform_cost(found, costs, 4))
    decibels = [
        decibels_of(model, unseen, program_of(model, each, x))
        for each in (recipe, mixed.recipe(prepared))
    ]
    assert mixed.cost <= uniform_cost(found, costs, 4)
    assert decibels[1] > decibels[0] + 0.5, decibels


def test_names_that_are_words_of_the_language_are_meant_exactly():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(torch.relu(self.last(x)))

    x = torch.randn(8, 3)
    prepared = prepare(Named().eval(), load_recipe("w4a8"), x[:1])
    found = measure_sensitivity(prepared, x, weight_bits=(2, 8))
    costs = weight_bit_costs(prepared, found)
    recipe = allocate(prepared, found, costs, 9 * 10).recipe(prepared)
    again = prepare(Named().eval(), recipe, x[:1])
    bits = {name: again.weight_quantizer(name).bits for name in ("first", "last")}
    assert sorted(bits.values()) == [2, 8]

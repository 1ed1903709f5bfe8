import pytest
import torch
from tests.chip.verification.altered import altered, with_changed_entry
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

FEW = {"oracle_samples": 1, "layer_samples": 16, "multiplier_widths": ()}


@pytest.mark.parametrize(
    ("role", "delta", "reason"),
    [
        ("weight", 2, "parameters that are not the model's: 1"),
        ("weight", -90, "parameters that are not the model's: 1"),
        ("bias", 3, "parameters that are not the model's: 1"),
        ("multiplier", 1, "rescalings that the scales do not call for: 1"),
        ("shift", -1, "rescalings that the scales do not call for: 1"),
    ],
)
@pytest.mark.parametrize("layer", ["stem.0", "head"])
def test_one_wrong_integer_of_a_program_is_found(
    layer: str,
    role: str,
    delta: int,
    reason: str,
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
):
    wrong = with_changed_entry(small_program, f"{layer}.{role}", delta)
    assert verify(small_network, small_program, small_images, **FEW).passed
    report = verify(small_network, wrong, small_images, **FEW)
    assert not report.passed
    assert any(line.startswith(reason) for line in report.reasons)
    found = next(row for row in report.layers if row.node == layer)
    strays = (found.weight.stray_weights or 0) + (found.weight.stray_biases or 0)
    assert strays + found.wrong_rescalings == 1


@pytest.mark.parametrize("field", ["coefficients", "bias"])
def test_one_wrong_integer_of_an_addition_is_found(
    field: str, small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    step = next(step for step in small_program.steps if step.operator.kind == "add")
    value = getattr(step.operator, field)
    value = (value[0] + 1, *value[1:]) if field == "coefficients" else value + 1
    operator = step.operator.model_copy(update={field: value})
    wrong = altered(
        small_program, steps={step.name: step.model_copy(update={"operator": operator})}
    )
    report = verify(small_network, wrong, small_images, **FEW)
    assert any("rescalings" in line for line in report.reasons)


@pytest.mark.parametrize(("field", "delta"), [("zero_point", 1), ("offset", 1)])
def test_a_wrong_constant_of_a_requantization_is_found(
    field: str,
    delta: int,
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
):
    step = next(step for step in small_program.steps if step.operator.kind == "requantize")
    operator = step.operator.model_copy(update={field: getattr(step.operator, field) + delta})
    wrong = altered(
        small_program, steps={step.name: step.model_copy(update={"operator": operator})}
    )
    report = verify(small_network, wrong, small_images, **FEW)
    assert any("rescalings" in line for line in report.reasons)


def test_a_program_of_other_weights_is_found_by_its_noise(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    torch.manual_seed(5)
    other = type(small_network)().eval()
    report = verify(other, small_program, small_images, **FEW)
    assert any("SQNR of output" in line for line in report.reasons)


class Floor(Quantizer):
    """Rounds down: up to one step away from the weight."""

    def quantize(self, x: Tensor) -> Tensor:
        scaled = torch.floor(x / self.scale_for(x))
        return scaled.clamp(self.codes.low, self.codes.high)


class PowersOfTwo(Quantizer):
    """Only the codes 0, 1, 2, 4, …: far from linear."""

    def quantize(self, x: Tensor) -> Tensor:
        codes = super().quantize(x)
        exponent = torch.log2(codes.abs().clamp(min=1)).floor()
        return codes.sign() * torch.exp2(exponent)


@pytest.mark.parametrize("kind", [Floor, PowersOfTwo])
def test_weights_of_a_users_quantizer_are_not_called_strays(
    kind: type[Quantizer], small_network: nn.Module, small_images: Tensor
):
    recipe = Recipe(name="own", weight=kind(8, narrow=True), activation=Quantizer(8))
    prepared = prepare(small_network, recipe, small_images[:1])
    calibrate(prepared, small_images)
    program = convert(prepared, load_target("asic"))
    report = verify(small_network, program, small_images, **FEW)
    strays = [check.value for check in report.checks if "parameters" in check.name]
    assert strays == [0]


def test_weights_that_were_trained_further_are_not_called_strays(
    small_network: nn.Module, small_images: Tensor, small_prepared: PreparedModel
):
    prepared = prepare(small_network, load_recipe("w8a8"), small_images[:1])
    with torch.no_grad():
        for parameter in prepared.weights.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    calibrate(prepared, small_images)
    program = convert(prepared, load_target("asic"))
    report = verify(small_network, program, small_images, **FEW)
    assert next(check for check in report.checks if "parameters" in check.name).value == 0
    assert all(row.weight.stray_weights is None for row in report.layers if row.weight)

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.chip.verification.altered import altered
from torch import Tensor, nn

from photomask import TargetError
from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)
from photomask.chip.arithmetic import fixed_point
from photomask.chip.program import Step
from photomask.chip.verification import with_multiplier_bits


class Everything(nn.Module):
    """Every way in which an output is rescaled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.second = nn.Conv2d(2, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(12 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.first(x)), 9 * self.second(x)
        a = torch.nn.functional.avg_pool2d(a, 3, 2, padding=1) * 0.5
        b = torch.nn.functional.avg_pool2d(b, 3, 2, padding=1, count_include_pad=False)
        c = torch.nn.functional.adaptive_avg_pool2d(torch.cat([a - b, a * b], 1), (3, 3))
        c = c + c.mean(dim=(2, 3), keepdim=True) - c.sum(dim=1, keepdim=True)
        return self.head(c.flatten(1))


def converted(model: nn.Module, images: Tensor, recipe: str, target: str) -> IntegerProgram:
    prepared = prepare(model, load_recipe(recipe), images[:1])
    calibrate(prepared, images)
    return convert(prepared, load_target(target))


@pytest.mark.parametrize(
    ("recipe", "target"),
    [
        ("w8a8", "asic"),
        ("w4a8", "onnxruntime"),
        ("w4a8-group", "asic"),
        ("w8a8-signed", "tflite"),
        ("w8a8-symmetric", "deeploy"),
    ],
)
def test_the_program_made_again_at_its_own_width_is_the_same_program(recipe: str, target: str):
    program = converted(Everything().eval(), torch.randn(8, 2, 7, 7), recipe, target)
    again = with_multiplier_bits(program, program.target.multiplier_bits)
    assert again.content_hash() == program.content_hash()


def test_a_program_of_shifts_alone_is_as_its_scales_say(small_images: Tensor):
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3 * 144, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + torch.relu(self.convolution(x))).flatten(1))

    model = Residual().eval()
    program = converted(model, small_images, "w8a8-po2", "max78000")
    with pytest.raises(TargetError, match="shifts alone"):
        with_multiplier_bits(program, 8)
    assert verify(model, program, small_images).multipliers is None


@pytest.mark.parametrize("bits", [4, 8, 12, 24, 31])
def test_multipliers_of_another_width_are_as_near_as_that_width_allows(
    bits: int, small_program: IntegerProgram
):
    rebuilt = with_multiplier_bits(small_program, bits)
    for step in rebuilt.steps:
        if step.operator.kind == "requantize" and "add" not in step.node:
            assert step.relative_error <= 2.0**-bits
            multiplier = rebuilt.tensors[step.tensors["multiplier"]]
            assert multiplier.max() < 1 << bits
            assert multiplier.min() >= 1 << (bits - 1)
    assert {name for name in rebuilt.tensors if not name.endswith(("multiplier", "shift"))} == {
        name for name in small_program.tensors if not name.endswith(("multiplier", "shift"))
    }


@pytest.mark.parametrize("bits", [3, 32])
def test_a_width_that_no_target_has_is_refused(bits: int, small_program: IntegerProgram):
    with pytest.raises(TargetError, match="no target has such multipliers"):
        with_multiplier_bits(small_program, bits)


def test_the_study_counts_what_a_plain_comparison_counts(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    with torch.no_grad():
        classes = small_network(small_images).argmax(dim=1)
    report = verify(
        small_network,
        small_program,
        small_images,
        classes,
        study_samples=16,
        multiplier_widths=(5, 31),
    )
    study = report.multipliers
    assert study is not None
    assert [cost.bits for cost in study.costs] == [5, 16, 31]
    assert (study.reference_bits, study.samples) == (31, 16)
    assert [cost.chosen for cost in study.costs] == [False, True, False]
    edges = [edge.name for edge in small_program.edges.values() if edge.role == "activation"]
    output = small_program.outputs[0]
    found = {}
    for bits in (5, 31):
        rebuilt = with_multiplier_bits(small_program, bits)
        codes = {rebuilt.inputs[0]: rebuilt.quantize_input(small_images).numpy()}
        found[bits] = dict(NumpyEngine(rebuilt).edges(codes))
    differences = {name: np.abs(found[5][name] - found[31][name]) for name in edges}
    changed = sum(int((d > 0).sum()) for d in differences.values())
    cost = study.costs[0]
    assert cost.activations_changed == pytest.approx(
        100 * changed / sum(d.size for d in differences.values())
    )
    assert cost.outputs_changed == pytest.approx(100 * (differences[output] > 0).mean())
    assert cost.largest_difference == max(
        d.max() for name, d in differences.items() if name != output
    )
    right = 100 * np.mean(found[5][output].argmax(1) == classes.numpy())
    assert cost.top1 == cost.agreement == pytest.approx(right)
    assert study.costs[-1].activations_changed == 0


def test_an_impossible_width_is_reported_with_its_reason(
    small_network: nn.Module, small_images: Tensor
):
    prepared = prepare(small_network, load_recipe("w8a8"), small_images[:1])
    calibrate(prepared, small_images)
    target = load_target("asic").model_copy(
        update={"accumulator_bits": 42, "multiplier_bits": 16, "shift_max": 40}
    )
    program = convert(prepared, target)
    report = verify(small_network, program, small_images, multiplier_widths=(12, 24))
    assert report.multipliers is not None
    impossible = report.multipliers.costs[-1]
    assert impossible.bits == 24
    assert "63" in str(impossible.problem)
    assert report.multipliers.reference_bits == 16
    assert "impossible" in str(report)


def test_a_narrower_multiplier_is_put_in_words(
    small_program: IntegerProgram, small_network: nn.Module, small_images: Tensor
):
    text = " ".join(str(verify(small_network, small_program, small_images)).split())
    assert "12 bits change" in text
    assert "units of the last bit" in text


class Averages(nn.Module):
    """Sums that are divided by 9, by the sizes of windows at the border, by 12, and by nothing."""

    def forward(self, x: Tensor) -> Tensor:
        a = torch.nn.functional.avg_pool2d(x, 3, 1, padding=1)
        b = torch.nn.functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        return a + b * x.mean((1, 3), keepdim=True) - x.sum(2, keepdim=True)


def averages() -> tuple[Averages, Tensor, IntegerProgram]:
    images = torch.randn(16, 3, 4, 4)
    return Averages(), images, converted(Averages(), images, "w8a8", "asic")


def divided(program: IntegerProgram) -> dict[str, Step]:
    return {step.node: step for step in program.steps if step.divisors is not None}


def test_a_step_records_by_what_it_divides():
    found = {node: step.divisors for node, step in divided(averages()[2]).items()}
    corner, side = [4, 6, 6, 4], [6, 9, 9, 6]
    border = tuple(corner + side + side + corner)
    assert list(found.values()) == [(9,), border, (12,), (1,)]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_an_average_that_divides_by_another_number_is_found(at: int, recorded: bool):
    """However far the number is, and whether or not the record was altered with it."""
    model, images, program = averages()
    step = list(divided(program).values())[at]
    for factor in (1.01, 1.1, 4 / 3):
        x, y = program.edges[step.inputs[0]], program.edges[step.output]
        divisors = np.array(step.divisors) * factor
        fixed = fixed_point(x.scale[0] / (divisors * y.scale[0]), program.target, "test")
        shape = program.parameters(step)["multiplier"].shape
        values = {
            step.tensors["multiplier"]: fixed.multiplier.reshape(shape),
            step.tensors["shift"]: fixed.shift.reshape(shape),
        }
        record = tuple(int(n) for n in np.ceil(divisors))
        steps = {step.name: step.model_copy(update={"divisors": record})} if recorded else None
        report = verify(model, altered(program, values, steps), images, multiplier_widths=())
        assert any(line.startswith("rescalings") for line in report.reasons)


def test_a_program_without_the_record_is_verified_by_its_model_and_studied_by_none(tmp_path: Path):
    """Programs of earlier versions do not say by what they divide; their hash stays valid."""
    model, images, program = averages()
    steps = {s.name: s.model_copy(update={"divisors": None}) for s in program.steps}
    old = altered(program, steps=steps)
    assert "divisors" not in old.steps[-1].model_dump()
    old.save(tmp_path / "old")
    loaded = IntegerProgram.load(tmp_path / "old")
    assert loaded.content_hash() == old.content_hash() != program.content_hash()
    report = verify(model, loaded, images, multiplier_widths=(8,))
    assert report.passed
    assert report.multipliers is None
    with pytest.raises(TargetError, match="does not record by what it divides"):
        with_multiplier_bits(loaded, 8)

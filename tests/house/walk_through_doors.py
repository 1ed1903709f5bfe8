"""Uses each dummy of `tests.house.doors` as a user would; run with a copy of the package in front.

Prints a line for each door that works; an error ends it.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch


@torch.library.custom_op("house::mirror", mutates_args=())
def mirror(x: torch.Tensor) -> torch.Tensor:
    """Minus its input, which no float operation of Photomask is."""
    return -x


@mirror.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Net(torch.nn.Module):
    """A layer, the operator of the dummy, the function of the dummy, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(2, 4, 3)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.ops.house.mirror(self.first(x))
        return self.last(torch.asinh(x).flatten(1))


def integer_operator() -> None:
    """It is captured, calibrated, converted, verified, and written by every form."""
    from photomask.chip import (
        NumpyEngine,
        OnnxEngine,
        calibrate,
        convert,
        load_recipe,
        prepare,
        verify,
    )
    from photomask.chip.forms import FORMS
    from photomask.chip.forms.golden import random_inputs, single_samples
    from photomask.chip.operators import OPERATORS, Mirror
    from photomask.errors import FormError

    torch.manual_seed(0)
    model, images = Net().eval(), torch.randn(16, 2, 4, 4)
    prepared = prepare(model, load_recipe("w8a8"), images[:1])
    calibrate(prepared, images)
    program = convert(prepared, "asic")
    kinds = [step.operator.kind for step in program.steps]
    assert kinds.count("mirror") == 1, kinds
    assert kinds.count("lookup") == 1, kinds
    report = verify(model, program, images, prepared=prepared)
    assert report.passed, str(report)
    codes = {program.inputs[0]: program.quantize_input(images).numpy()}
    for (name, found), (_, right) in zip(
        OnnxEngine(program).edges(codes), NumpyEngine(program).edges(codes), strict=True
    ):
        assert np.array_equal(found, right), name

    samples = single_samples(program, random_inputs(program, 1), None)
    written = []
    for form in FORMS:
        for operator in OPERATORS:
            form.refusal(operator)
        problems = form.problems(program)
        named = {problem.operator for problem in problems}
        assert ("mirror" in named) == (form.refusal(Mirror) is not None), form.name
        if problems:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "export" / form.place
            place.parent.mkdir(parents=True, exist_ok=True)
            form.export(program, place, samples)
            written.append(form.name)
            if form.name != "rtl":
                assert form.check(program, place, samples).passed, form.name
    assert {"memory", "c", "onnx", "qdq", "qonnx", "rtl"} <= set(written), written

    class Forgotten(Mirror):
        """What no form knows."""

    for form in FORMS:
        if form.name != "memory":
            with pytest.raises(FormError, match="neither writes nor refuses Forgotten"):
                form.refusal(Forgotten)


def quantizer_and_observer() -> None:
    """They have names in a recipe of JSON, and come back from it."""
    from photomask.chip import check_quantizer, load_recipe, save_recipe
    from photomask.chip.observers import HalfRange
    from photomask.chip.quantizers import Plain
    from photomask.chip.recipe.documents import RecipeDocument

    check_quantizer(Plain(8))
    part = {"algorithm": "plain", "observer": "half_range"}
    document = RecipeDocument.model_validate({"name": "own", "weight": part, "activation": part})
    with tempfile.TemporaryDirectory() as folder:
        save_recipe(document.build(), Path(folder) / "own.json")
        recipe = load_recipe(Path(folder) / "own.json")
    for quantizer in (recipe.weight, recipe.activation):
        assert type(quantizer) is Plain
        assert type(quantizer.observer) is HalfRange


def form() -> None:
    """The command line lists it, and it keeps the contract."""
    from typer.testing import CliRunner

    from photomask.chip import check_form
    from photomask.chip.forms import ListingForm, support_matrix
    from photomask.cli import app

    result = CliRunner().invoke(app, ["chip", "export", "--help"])
    assert "for readers of listings" in result.output, result.output
    assert "| listing |" in support_matrix()
    assert check_form(ListingForm(), _tiny_program()) == []


def engine() -> None:
    """It runs a program."""
    from photomask.chip import NumpyEngine, PatientEngine

    program = _tiny_program()
    codes = np.arange(4, dtype=np.int64).reshape(1, 4)
    (found,), (right,) = (one(program).run(codes).values() for one in (PatientEngine, NumpyEngine))
    assert np.array_equal(found, right)


def _tiny_program():
    from photomask.chip import calibrate, convert, load_recipe, prepare

    torch.manual_seed(0)
    x = torch.randn(8, 4)
    prepared = prepare(torch.nn.Linear(4, 2).eval(), load_recipe("w8a8"), x[:1])
    calibrate(prepared, x)
    return convert(prepared, "asic")


def target_preset() -> None:
    """It has a name."""
    from photomask.chip import load_target

    assert load_target("narrow").weight_bits == (4,)


def model_family() -> None:
    """Its images are told apart."""
    from photomask.attention.families import layout_of

    config = SimpleNamespace(model_type="dummy_vl", image_token_id=9)
    layout = layout_of(config, torch.tensor([[1, 2, 9, 9, 3, 1]]))
    assert layout.image.tolist() == [[-1, 0, 0, 0, 0, -1]]


def attention_pattern() -> None:
    """A schedule, its counts and its measurement are those of the literal mask."""
    from photomask.attention.families import layout_of
    from photomask.attention.measuring import SPARSE
    from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible
    from photomask.attention.schedule import build_schedule
    from photomask.attention.verification.pictures import _STRENGTHS
    from photomask.attention.visible_pairs import visible_pairs

    assert Pattern.OWN_IMAGE in SPARSE
    assert set(_STRENGTHS) == set(Pattern)
    config = SimpleNamespace(model_type="dummy_vl", image_token_id=9)
    prompt = torch.tensor([[1, 1, 2, *[9] * 20, 3, 1, 2, *[9] * 7, 3, 1, 1]])
    layout = layout_of(config, prompt)
    sinks = SinkRule(diagonal_block=4)
    rule = DenseRule()
    schedule = build_schedule(layout, sinks, rule, tile_rows=16)
    masks = {p: visible(layout, p, sinks, rule) for p in Pattern}
    for pattern, mask in masks.items():
        assert torch.equal(schedule.expand(pattern), mask), pattern
        assert visible_pairs(layout, pattern, sinks, rule).item() == mask.sum(), pattern
    assert len({mask.sum().item() for mask in masks.values()}) == len(Pattern)


WALKS: dict[str, tuple[Callable[[], None], ...]] = {
    "Adding an integer operator": (integer_operator,),
    "Capturing another ATen operator": (integer_operator,),
    "Adding a quantizer": (quantizer_and_observer,),
    "Adding an observer": (quantizer_and_observer,),
    "Adding a form": (form,),
    "Adding an engine": (engine,),
    "Adding a target preset": (target_preset,),
    "Adding a model family": (model_family,),
    "Adding an attention pattern": (attention_pattern,),
}

if __name__ == "__main__":
    done = set()
    for heading, walks in WALKS.items():
        for walk in walks:
            if walk not in done:
                walk()
            done.add(walk)
        sys.stdout.write(f"works: {heading}\n")

"""A converted model runs its plan, and nothing else of it changes."""

import copy
import random
from typing import Any

import pytest
import torch
from tests.attention.plugin.handlers import HEADS, LAYERS, SINKS, LiteralHandler
from tests.attention.tiny_models import FAMILY_NAMES, PAD, WITH_VIDEO, tiny_inputs, tiny_model
from torch import Tensor

from photomask.attention.conversion import convert, unconvert
from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plugin import attach
from photomask.errors import PlanError, UsageError


def random_plan(family: str, seed: int) -> HeadPlan:
    """Returns a plan with any pattern anywhere, and one layer of dense heads alone."""
    choose = random.Random(seed)
    patterns = [[choose.choice(list(Pattern)) for _ in range(HEADS)] for _ in range(LAYERS)]
    patterns[1] = [Pattern.DENSE] * HEADS
    plan = HeadPlan.uniform(tiny_model(family), Pattern.DENSE, SINKS)
    return plan.with_patterns(patterns)


def inputs_of(family: str, padding: str = "left") -> dict[str, Tensor]:
    """Two prompts of different length."""
    second = [2, "video", 1, "image", 3] if family in WITH_VIDEO else [2, "image", 3]
    return tiny_inputs(family, [[3, "image", 2, "image", "image", 4], second], padding)


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Returns the logits of the tokens that are not padding."""
    return model(**inputs).logits[inputs["attention_mask"].bool()]


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_plan_runs_as_its_masks_say(family: str, padding: str):
    model, inputs = tiny_model(family), inputs_of(family, padding)
    plan = random_plan(family, seed=len(padding))
    expected = logits(attach(model, LiteralHandler(plan.patterns)), inputs)
    assert_same(logits(convert(model, plan), inputs), expected)
    assert (expected - logits(model, inputs)).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_dense_plan_changes_nothing(family: str):
    model, inputs = tiny_model(family), inputs_of(family)
    converted = convert(model, HeadPlan.uniform(model, Pattern.DENSE))
    assert torch.equal(logits(converted, inputs), logits(model, inputs))


def test_one_sparse_head_makes_the_dense_heads_of_its_layer_run_sparse_code_right():
    model, inputs = tiny_model("gemma3"), inputs_of("gemma3")
    patterns = [[Pattern.DENSE] * HEADS for _ in range(LAYERS)]
    patterns[0][2] = Pattern.INTRA_IMAGE_SINK  # sees all there is with every token a sink
    everything = SinkRule(leading=1000, diagonal_block=1)
    plan = HeadPlan.uniform(model, Pattern.DENSE, everything).with_patterns(patterns)
    assert_same(logits(convert(model, plan), inputs), logits(model, inputs))


def test_generation_under_a_plan_writes_what_the_masks_write():
    model, inputs = tiny_model("qwen2_5_vl"), inputs_of("qwen2_5_vl")
    plan = random_plan("qwen2_5_vl", seed=1)
    ways = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}
    ways |= {"suppress_tokens": [60, 61, 62, 63]}
    literal = attach(model, LiteralHandler(plan.patterns))
    for extra in ({}, {"num_beams": 2}, {"cache_implementation": "static"}):
        found = convert(model, plan).generate(**inputs, **ways, **extra)
        assert torch.equal(found, literal.generate(**inputs, **ways, **extra))


def test_conversion_leaves_the_model_alone_and_can_be_undone():
    model, inputs = tiny_model("internvl"), inputs_of("internvl")
    before = logits(model, inputs)
    converted = convert(model, random_plan("internvl", seed=2))
    assert converted is not model
    assert not torch.equal(logits(converted, inputs), before)
    assert torch.equal(logits(model, inputs), before)
    assert unconvert(converted) is model
    pointers = [tensor.data_ptr() for tensor in model.parameters()]
    assert [tensor.data_ptr() for tensor in converted.parameters()] == pointers


@pytest.mark.parametrize("how", ["bfloat16", "autocast"])
def test_half_precision_is_as_close_as_the_literal_masks(how: str):
    plan, inputs = random_plan("internvl", seed=3), inputs_of("internvl")
    model = tiny_model("internvl")
    exact = logits(attach(model, LiteralHandler(plan.patterns)), inputs)
    if how == "bfloat16":
        model = copy.deepcopy(model).to(torch.bfloat16)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found = logits(convert(model, plan), inputs)
        literal = logits(attach(model, LiteralHandler(plan.patterns)), inputs)
    assert (found - exact).abs().mean() <= 1.5 * (literal - exact).abs().mean()
    assert (literal - exact).abs().mean() > 0


def test_an_executor_is_asked_for_by_name():
    model = tiny_model("internvl")
    inputs = inputs_of("internvl")
    plan = random_plan("internvl", 4)
    found = logits(convert(model, plan, executor="torch"), inputs)
    assert torch.equal(found, logits(convert(model, plan), inputs))
    with pytest.raises(UsageError, match="executor must be one of 'auto', 'triton', 'torch'"):
        convert(model, plan, executor="cuda")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="not on 'cpu'"):
        logits(convert(model, plan, executor="triton"), inputs)


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(PlanError, match="another model"):
        convert(tiny_model("internvl"), random_plan("qwen2_5_vl", seed=0))


def test_what_was_never_converted_cannot_be_undone():
    with pytest.raises(UsageError, match="never converted"):
        unconvert(tiny_model("internvl"))

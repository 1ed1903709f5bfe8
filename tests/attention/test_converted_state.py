"""What a converted model says of itself, and that it never runs dense in silence."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attention.plugin.handlers import SINKS
from tests.attention.tiny_models import tiny_inputs, tiny_model
from torch import Tensor, nn

from photomask.attention import HeadPlan, Pattern, convert, is_sparse, last_density, unconvert
from photomask.attention.families import layout_of
from photomask.attention.patterns import DenseRule, visible
from photomask.attention.plugin import text_attention_layers
from photomask.errors import UsageError

PATTERNS = [[Pattern.SINK, Pattern.DENSE, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK]] * 3


def converted(family: str = "internvl") -> Any:
    model = tiny_model(family)
    return convert(model, HeadPlan.uniform(model, Pattern.DENSE, SINKS).with_patterns(PATTERNS))


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return tiny_inputs("internvl", [[3, "image", 2, "image", "image", 4]])


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits


def by_name(model: Any) -> None:
    model.set_attn_implementation("sdpa")


def by_part(model: Any) -> None:
    model.set_attn_implementation({"text_config": "eager"})


def by_configuration(model: Any) -> None:
    model.config._attn_implementation = "sdpa"


def by_text_configuration(model: Any) -> None:
    model.config.text_config._attn_implementation = "eager"


def by_tower(model: Any) -> None:
    model.model.language_model.set_attn_implementation("sdpa")


def by_layer(model: Any) -> None:
    """Another configuration for one layer, which no configuration of the model shows."""
    layer: Any = text_attention_layers(model)[1]
    layer.config = copy.deepcopy(layer.config)
    layer.config._attn_implementation = "sdpa"


SWITCHES = [by_name, by_part, by_configuration, by_text_configuration, by_tower, by_layer]


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switched_model_refuses_to_run(switch: Callable[[Any], None], inputs: dict[str, Tensor]):
    model = converted()
    logits(model, inputs)
    switch(model)
    with pytest.raises(UsageError, match=r"convert"):
        logits(model, inputs)
    with pytest.raises(UsageError, match=r"convert"), torch.no_grad():
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    if switch is not by_layer:
        assert not is_sparse(model)
        with pytest.raises(UsageError, match="switched to"), torch.no_grad():
            model.model(**inputs)  # a part, which would else run dense unseen
    assert torch.equal(logits(unconvert(model), inputs), logits(tiny_model("internvl"), inputs))


def test_a_model_that_was_switched_back_is_sparse_again(inputs: dict[str, Tensor]):
    model = converted()
    expected = logits(model, inputs)
    model.set_attn_implementation("sdpa")
    model.set_attn_implementation({"text_config": "photomask"})
    assert is_sparse(model)
    assert torch.equal(logits(model, inputs), expected)


def test_the_vision_tower_may_be_switched(inputs: dict[str, Tensor]):
    model = converted()
    expected = logits(model, inputs)
    model.set_attn_implementation({"vision_config": "eager"})
    assert is_sparse(model)
    torch.testing.assert_close(logits(model, inputs), expected, atol=1e-5, rtol=1e-5)


def test_only_what_was_converted_is_sparse():
    model = converted()
    assert is_sparse(model)
    assert is_sparse(copy.deepcopy(model))
    assert is_sparse(torch.compile(model, backend="eager"))
    assert not is_sparse(unconvert(model))
    assert not is_sparse(nn.Linear(2, 2))
    assert not is_sparse("a model")


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_last_density_is_that_of_the_masks_written_out(padding: str):
    model = converted()
    assert last_density(model) is None
    logits(model, tiny_inputs("internvl", [[9]]))
    assert last_density(model) is None  # no image yet
    prompts = [[3, "image", 2, "image", "image", 4], [2, "image", 3, "image", 5]]
    inputs = tiny_inputs("internvl", prompts, padding)
    logits(model, inputs)
    layout = layout_of(model.config, **inputs)
    seen = [int(visible(layout, each, SINKS, DenseRule()).sum()) for each in PATTERNS[0]]
    expected = sum(seen) / (4 * int(visible(layout, Pattern.DENSE, SINKS, DenseRule()).sum()))
    assert last_density(model) == pytest.approx(expected)
    assert last_density(torch.compile(model, backend="eager")) == pytest.approx(expected)
    logits(model, tiny_inputs("internvl", [[9]]))
    assert last_density(model) == pytest.approx(expected)  # text is no prefill with images


def test_the_density_of_windows_and_both_directions_counts_what_a_dense_head_would_see():
    model = tiny_model("gemma3")
    dense = convert(model, HeadPlan.uniform(model, Pattern.DENSE))
    logits(dense, tiny_inputs("gemma3", [[3, "image", 2, "image", 4]]))
    assert last_density(dense) == 1.0
    sparse = convert(model, HeadPlan.uniform(model, Pattern.INTRA_IMAGE))
    logits(sparse, tiny_inputs("gemma3", [[3, "image", 2, "image", 4]]))
    found = last_density(sparse)
    assert found is not None
    assert 0 < found < 1


def test_the_density_of_a_model_without_a_plan_cannot_be_asked():
    with pytest.raises(UsageError, match="never converted"):
        last_density(tiny_model("internvl"))


def test_a_converted_model_says_how_it_is_saved(tmp_path: Path):
    model = converted()
    with pytest.raises(UsageError, match=r"plan\.save.*convert again"):
        pickle.dumps(model)
    with pytest.raises(UsageError, match=r"plan\.save.*convert again"):
        torch.save(model, io.BytesIO())
    # What the message says works.
    plan = HeadPlan.uniform(model, Pattern.SINK)
    plan.save(tmp_path / "plan.json")
    unconvert(model).save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert is_sparse(convert(loaded, HeadPlan.load(tmp_path / "plan.json")))


def test_a_layer_whose_forward_is_exchanged_is_found(inputs: dict[str, Tensor]):
    model = converted()
    layer: Any = text_attention_layers(model)[2]

    def zeros(hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return torch.zeros_like(hidden_states), None

    layer.forward = zeros
    with pytest.raises(UsageError, match=r"text layers \[2\].*another attention"):
        logits(model, inputs)

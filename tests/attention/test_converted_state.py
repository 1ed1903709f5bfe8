"""What a converted model says of itself, and that it never runs dense in silence."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attention.caches import cache_of, holding
from tests.attention.plugin.handlers import SINKS, LiteralHandler
from tests.attention.tiny_models import IMAGE, tiny_inputs, tiny_model
from torch import Tensor, nn

from photomask.attention import HeadPlan, Pattern, convert, is_sparse, last_prefill, unconvert
from photomask.attention.families import layout_of
from photomask.attention.patterns import DenseRule, visible
from photomask.attention.plugin import attach, text_attention_layers
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
def test_the_last_prefill_counts_the_pairs_of_the_masks_written_out(padding: str):
    model = converted()
    assert last_prefill(model) is None
    logits(model, tiny_inputs("internvl", [[9]]))
    assert last_prefill(model) is None  # no image yet
    prompts = [[3, "image", 2, "image", "image", 4], [2, "image", 3, "image", 5]]
    inputs = tiny_inputs("internvl", prompts, padding)
    logits(model, inputs)
    layout = layout_of(model.config, **inputs)
    masks = [visible(layout, each, SINKS, DenseRule()) for each in PATTERNS[0]]
    causal = visible(layout, Pattern.DENSE, SINKS, DenseRule())
    found = last_prefill(model)
    assert found is not None
    for row, prompt in enumerate(found.prompts):
        assert prompt.visible == 3 * sum(int(mask[row].sum()) for mask in masks)
        assert prompt.causal == 3 * 4 * int(causal[row].sum())
        assert prompt.density == prompt.visible / prompt.causal
        assert prompt.tokens == int(inputs["attention_mask"][row].sum())
    assert [prompt.images for prompt in found.prompts] == [3, 2]
    total = sum(int(mask.sum()) for mask in masks)
    assert found.density == pytest.approx(total / (4 * int(causal.sum())))
    assert last_prefill(torch.compile(model, backend="eager")) == found
    logits(model, tiny_inputs("internvl", [[9]]))
    assert last_prefill(model) == found  # text is no prefill with images


def test_the_last_prefill_names_the_layers_and_what_computed_them(inputs: dict[str, Tensor]):
    model = tiny_model("internvl")
    rows = [[Pattern.DENSE] * 4, PATTERNS[1], [Pattern.DENSE, *[Pattern.SINK] * 3]]
    plan = HeadPlan.uniform(model, Pattern.DENSE, SINKS).with_patterns(rows)
    sparse = convert(model, plan)
    logits(sparse, inputs)
    found = last_prefill(sparse)
    assert found is not None
    assert (found.sparse_layers, found.sparse_heads) == (2, 6)
    assert found.kernels == {"sdpa": 1, "torch_prefill": 2}
    text = str(found)
    assert "6 sparse heads in 2 layers" in text
    assert "sdpa (1 layers), torch_prefill (2 layers)" in text
    assert last_prefill(copy.deepcopy(sparse)) is None  # a copy has run nothing


def test_the_last_prefill_of_chunks_is_the_last_chunk_with_images():
    model = converted()
    inputs = tiny_inputs("internvl", [[3, "image", 2, "image", 4]])
    cut = int((inputs["input_ids"][0] == IMAGE).int().diff().argmin()) + 2
    parts = inputs["input_ids"].split([cut, inputs["input_ids"].shape[1] - cut], 1)
    entries = int((parts[0] == IMAGE).sum()) // 4
    pixels = inputs["pixel_values"].tensor_split([entries])
    cache = None
    for ids, own in zip(parts, pixels, strict=True):
        with torch.no_grad():
            cache = cache_of(model(input_ids=ids, pixel_values=own, **holding(cache)))
    found = last_prefill(model)
    assert found is not None
    (prompt,) = found.prompts
    assert (prompt.tokens, prompt.images) == (inputs["input_ids"].shape[1], 2)
    layout = layout_of(model.config, inputs["input_ids"])
    masks = [visible(layout, each, SINKS, DenseRule())[0, cut:] for each in PATTERNS[0]]
    assert prompt.visible == 3 * sum(int(mask.sum()) for mask in masks)


def test_the_density_of_windows_and_both_directions_counts_what_a_dense_head_would_see():
    model = tiny_model("gemma3")
    found = []
    for pattern in (Pattern.DENSE, Pattern.INTRA_IMAGE):
        sparse = convert(model, HeadPlan.uniform(model, pattern))
        logits(sparse, tiny_inputs("gemma3", [[3, "image", 2, "image", 4]]))
        prefill = last_prefill(sparse)
        assert prefill is not None
        found.append(prefill.density)
    assert found[0] == 1.0
    assert 0 < found[1] < 1


def test_the_prefill_of_a_model_without_a_plan_cannot_be_asked():
    for other in (tiny_model("internvl"), "a model"):
        with pytest.raises(UsageError, match="never converted"):
            last_prefill(other)
    with pytest.raises(UsageError, match="runs a LiteralHandler, which has no plan"):
        last_prefill(attach(tiny_model("internvl"), LiteralHandler()))


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

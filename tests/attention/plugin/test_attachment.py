"""An attached model computes what the model computes, and leaves the model alone."""

import copy
import threading
from typing import Any

import pytest
import torch
from tests.attention.plugin.handlers import DENSE, HEADS, LAYERS, MIXED, SINKS, LiteralHandler
from tests.attention.tiny_models import (
    FAMILY_NAMES,
    PAD,
    WITH_VIDEO,
    Prompt,
    tiny_inputs,
    tiny_model,
)
from torch import Tensor, nn

from photomask.attention.families import layout_of
from photomask.attention.patterns import DenseRule, visible
from photomask.attention.plugin import attach, detach, prompt_layout, text_attention_layers
from photomask.errors import LayoutError, PlanError, UsageError

GENERATE = {
    "max_new_tokens": 3,
    "do_sample": False,
    "pad_token_id": PAD,
    "suppress_tokens": [60, 61, 62, 63],  # an untrained model may write what no prompt may hold
}


def prompts(family: str) -> list[Prompt]:
    """Two prompts of different length, with adjacent images, and a video where there are any."""
    second = [2, "video", 1, "image", 3] if family in WITH_VIDEO else [2, "image", 3]
    return [[3, "image", 2, "image", "image", 4], second]


@torch.no_grad()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Returns the logits of the tokens that are not padding."""
    return model(**inputs).logits[inputs["attention_mask"].bool()]


@pytest.mark.parametrize("family", [*FAMILY_NAMES, "qwen3_vl_moe"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_dense_masks_give_the_models_own_logits(family: str, padding: str):
    model, handler = tiny_model(family), LiteralHandler(DENSE)
    inputs = tiny_inputs(family, prompts(family), padding)
    torch.testing.assert_close(
        logits(attach(model, handler), inputs), logits(model, inputs), atol=1e-5, rtol=1e-5
    )
    assert [layer for layer, _ in handler.calls] == list(range(LAYERS))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_dense_gives_the_models_own_attention(family: str):
    model = tiny_model(family)
    attached = attach(model, lambda request: request.dense())
    inputs = tiny_inputs(family, prompts(family))
    torch.testing.assert_close(logits(attached, inputs), logits(model, inputs), atol=0, rtol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_handler_gets_the_layout_of_the_prompts(family: str):
    model, handler = tiny_model(family), LiteralHandler(DENSE)
    inputs = tiny_inputs(family, prompts(family))
    logits(attach(model, handler), inputs)
    expected = layout_of(model.config, **inputs)
    for _, call in handler.calls:
        assert call.query_start == 0
        assert [call.layout.describe(row) for row in range(2)] == [
            expected.describe(row) for row in range(2)
        ]


def test_sparse_heads_are_what_the_model_computes_under_a_mask_for_each_head():
    model = tiny_model("internvl")
    inputs = tiny_inputs("internvl", [[3, "image", 2, "image", "image", 4]])
    layout = layout_of(model.config, **inputs)
    masks = [visible(layout, pattern, SINKS, DenseRule()) for pattern in MIXED[1]]
    with torch.no_grad():
        expected = model(**{**inputs, "attention_mask": torch.stack(masks, 1)}).logits[0]
    attached = attach(model, LiteralHandler([MIXED[1]] * LAYERS))
    torch.testing.assert_close(logits(attached, inputs), expected, atol=1e-5, rtol=1e-5)
    assert (expected - logits(model, inputs)).abs().max() > 0.1


def test_gemma_layers_have_the_windows_and_directions_of_the_model():
    model, handler = tiny_model("gemma3"), LiteralHandler(DENSE)
    inputs = tiny_inputs("gemma3", prompts("gemma3"))
    attached = attach(model, handler)
    logits(attached, inputs)
    assert [call.rule for _, call in handler.calls] == [
        DenseRule(True, 24), DenseRule(True), DenseRule(True, 24)
    ]  # fmt: skip
    assert handler.calls[0][1] is handler.calls[2][1]
    del inputs["token_type_ids"]  # without them, the model itself is causal
    torch.testing.assert_close(
        logits(attached, inputs), logits(model, inputs), atol=1e-5, rtol=1e-5
    )
    assert handler.calls[3][1].rule == DenseRule(False, 24)


def test_windows_of_a_causal_model_count_too():
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = copy.deepcopy(tiny_model("qwen2_5_vl").config)
    config.text_config.sliding_window = 7
    config.text_config.layer_types = ["full_attention", "sliding_attention", "sliding_attention"]
    model, handler = Qwen2_5_VLForConditionalGeneration(config).eval(), LiteralHandler(DENSE)
    inputs = tiny_inputs("qwen2_5_vl", prompts("qwen2_5_vl"))
    attached = attach(model, handler)
    torch.testing.assert_close(
        logits(attached, inputs), logits(model, inputs), atol=1e-5, rtol=1e-5
    )
    assert [call.rule.window for _, call in handler.calls] == [None, 7, 7]


def test_guesses_of_a_prompt_lookup_are_taken_back():
    model, handler = tiny_model("internvl"), LiteralHandler(DENSE)
    asked = {**tiny_inputs("internvl", [[9, "image", 9]]), **GENERATE, "max_new_tokens": 8}
    asked["prompt_lookup_num_tokens"] = 3
    assert torch.equal(attach(model, handler).generate(**asked), model.generate(**asked))


def test_what_is_saved_does_not_name_the_plug_in():
    attached = attach(tiny_model("gemma3"), LiteralHandler())
    assert "photomask" not in attached.config.to_json_string(use_diff=False)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_text_alone_never_reaches_the_handler(family: str):
    model, handler = tiny_model(family), LiteralHandler()
    inputs = tiny_inputs(family, [[9], [4]])
    torch.testing.assert_close(
        logits(attach(model, handler), inputs), logits(model, inputs), atol=0, rtol=0
    )
    assert not handler.calls


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_generate_writes_the_same(family: str):
    model, handler = tiny_model(family), LiteralHandler(DENSE)
    inputs, attached = tiny_inputs(family, prompts(family)), attach(model, handler)
    for how in ({}, {"num_beams": 2}, {"cache_implementation": "static"}):
        handler.calls.clear()
        asked = {**inputs, **GENERATE, **how}
        assert torch.equal(attached.generate(**asked), model.generate(**asked))
        assert len(handler.calls) == LAYERS  # nothing but the prefill


def test_generate_without_a_cache_writes_the_same():
    model, handler = tiny_model("qwen2_5_vl"), LiteralHandler(DENSE)
    asked = {**tiny_inputs("qwen2_5_vl", prompts("qwen2_5_vl")), **GENERATE, "use_cache": False}
    assert torch.equal(attach(model, handler).generate(**asked), model.generate(**asked))
    assert len(handler.calls) == LAYERS * GENERATE["max_new_tokens"]


def test_everything_is_shared_and_the_model_stays_as_it_was():
    for family in FAMILY_NAMES:
        model = tiny_model(family)
        inputs = tiny_inputs(family, prompts(family))
        before, config = logits(model, inputs), model.config.to_dict()
        attached = attach(model, LiteralHandler())
        ours = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        theirs = {**dict(attached.named_parameters()), **dict(attached.named_buffers())}
        assert ours.keys() == theirs.keys()
        assert all(ours[name] is theirs[name] for name in ours)
        assert (logits(attached, inputs) - before).abs().max() > 0.1
        assert torch.equal(logits(model, inputs), before)
        assert model.config.to_dict() == config
        assert model.config.get_text_config()._attn_implementation == "sdpa"
        assert attached.config.get_text_config()._attn_implementation == "photomask"
        assert attached.config.vision_config._attn_implementation == "sdpa"
        assert not model._forward_hooks
        assert not model._forward_pre_hooks
        assert detach(attached) is model


def test_the_layers_of_the_text_tower_are_found_in_order():
    for family in FAMILY_NAMES:
        layers = text_attention_layers(tiny_model(family))
        assert [layer.layer_idx for layer in layers] == list(range(LAYERS))
        assert all(layer.o_proj.in_features == HEADS * 16 for layer in layers)


def test_a_copy_of_an_attached_model_works_too():
    model = tiny_model("internvl")
    inputs = tiny_inputs("internvl", prompts("internvl"))
    attached = attach(model, LiteralHandler())
    other = copy.deepcopy(attached)
    assert torch.equal(logits(other, inputs), logits(attached, inputs))
    assert detach(other) is model


def test_token_ids_may_be_given_by_position():
    inputs = tiny_inputs("internvl", [[3, "image", 4]])
    attached = attach(tiny_model("internvl"), LiteralHandler())
    expected = logits(attached, inputs)
    with torch.no_grad():
        ids, pixels = inputs["input_ids"], inputs["pixel_values"]
        assert torch.equal(attached(ids, pixels, use_cache=False).logits[0], expected)


def test_threads_do_not_see_each_others_prompts():
    attached = attach(tiny_model("internvl"), LiteralHandler())
    many = [tiny_inputs("internvl", [[3, "image", size, "image", 2]]) for size in range(1, 7)]
    expected = [logits(attached, inputs) for inputs in many]
    found: list[Tensor | None] = [None] * len(many)

    def run(place: int) -> None:
        for _ in range(3):
            found[place] = logits(attached, many[place])

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(many))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        assert torch.equal(mine, theirs)


def test_a_failed_forward_leaves_nothing_behind():
    def fail(*arguments: object) -> Tensor:
        raise KeyError("handler")

    attached = attach(tiny_model("internvl"), fail)
    inputs = tiny_inputs("internvl", [[3, "image", 4]])
    with pytest.raises(KeyError):
        logits(attached, inputs)
    with torch.no_grad(), pytest.raises(UsageError, match="outside a forward"):
        attached.model(input_ids=torch.tensor([[5, 6]]))


def test_compilation_keeps_the_result():
    model = copy.deepcopy(tiny_model("internvl"))
    model.config.text_config.num_hidden_layers = 1
    model.model.language_model.layers = model.model.language_model.layers[:1]
    attached = attach(model, LiteralHandler())
    pictures = attached.model.get_image_features
    attached.model.get_image_features = torch.compiler.disable(pictures)  # to save time
    inputs = tiny_inputs("internvl", [[3, "image", 4]])
    with torch.no_grad():
        compiled = torch.compile(attached, backend="eager")
        assert torch.equal(compiled(**inputs).logits[0], logits(attached, inputs))
        embedded = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
        with prompt_layout(compiled, layout_of(model.config, **inputs)):
            assert torch.equal(compiled(**embedded).logits, attached(**embedded).logits)
        torch._dynamo.reset()
    with pytest.raises(UsageError, match="before you compile"):
        attach(compiled, LiteralHandler())


@pytest.fixture
def attached() -> Any:
    return attach(tiny_model("internvl"), LiteralHandler())


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return tiny_inputs("internvl", [[3, "image", 2, "image", 4]])


def test_a_mask_of_four_dimensions_is_refused(attached: Any, inputs: dict[str, Tensor]):
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length, dtype=torch.bool)
    with torch.no_grad(), pytest.raises(PlanError, match="a mask of its own"):
        attached(**inputs)


def test_embeddings_without_tokens_are_refused(attached: Any):
    with torch.no_grad(), pytest.raises(LayoutError, match="input_ids"):
        attached(inputs_embeds=torch.randn(1, 4, 32))


def test_attention_weights_are_refused(attached: Any, inputs: dict[str, Tensor]):
    with torch.no_grad(), pytest.raises(UsageError, match="output_attentions"):
        attached(**inputs, output_attentions=True)


def test_gradients_are_refused(attached: Any, inputs: dict[str, Tensor]):
    with pytest.raises(UsageError, match="inference_mode"):
        attached(**inputs)


@pytest.mark.parametrize("extra", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}], ids=str)
def test_what_changes_the_scores_is_refused(
    attached: Any, inputs: dict[str, Tensor], extra: dict[str, Any]
):
    with torch.no_grad(), pytest.raises(PlanError, match="cannot honour"):
        attached(**inputs, **extra)


def test_attention_without_causality_is_refused(attached: Any, inputs: dict[str, Tensor]):
    with torch.no_grad(), pytest.raises(PlanError, match="causal"):
        attached(**inputs, is_causal=False)


def test_dropout_is_refused(inputs: dict[str, Tensor]):
    model = copy.deepcopy(tiny_model("internvl"))
    for layer in text_attention_layers(model):
        layer.attention_dropout = 0.1  # pyright: ignore[reportAttributeAccessIssue]
    attached = attach(model.train(), LiteralHandler())
    with torch.no_grad(), pytest.raises(UsageError, match=r"model\.eval"):
        attached(**inputs)


def test_packed_prompts_are_refused(attached: Any, inputs: dict[str, Tensor]):
    length = inputs["input_ids"].shape[1]
    inputs["position_ids"] = torch.cat([torch.arange(6), torch.arange(length - 6)])[None]
    del inputs["attention_mask"]
    with torch.no_grad(), pytest.raises(PlanError, match="Packed prompts"):
        attached(**inputs, use_cache=False)


def test_a_mask_that_is_too_short_is_refused(inputs: dict[str, Tensor], attached: Any):
    inputs["attention_mask"] = inputs["attention_mask"][:, :-2]
    with torch.no_grad(), pytest.raises(LayoutError, match="give the mask of all of them"):
        attached(**inputs)


def test_a_part_of_an_attached_model_is_refused(attached: Any, inputs: dict[str, Tensor]):
    with torch.no_grad(), pytest.raises(UsageError, match="not a part of it"):
        attached.model(**inputs)


def test_models_that_cannot_be_attached_are_refused():
    with pytest.raises(UsageError, match="no model of transformers"):
        attach(nn.Linear(2, 2), LiteralHandler())
    model = copy.deepcopy(tiny_model("internvl"))
    with pytest.raises(UsageError, match="converted already"):
        attach(attach(model, LiteralHandler()), LiteralHandler())
    with pytest.raises(UsageError, match=r"'llama'.*not supported.*qwen2_5_vl"):
        attach(_language_model(), LiteralHandler())
    with pytest.raises(UsageError, match="never converted"):
        detach(model)
    model.set_attn_implementation("eager")
    with pytest.raises(UsageError, match="load it with attn_implementation='sdpa'"):
        attach(model, LiteralHandler())
    with pytest.raises(UsageError, match="offloaded"):
        attach(copy.deepcopy(tiny_model("internvl")).to("meta"), LiteralHandler())


def _language_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **sizes))

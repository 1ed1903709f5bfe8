"""The object in place of a mask: the model's own mask, or what a plan needs."""

from typing import Any

import pytest
import torch
from tests.attention.plugin.handlers import LiteralHandler
from tests.attention.tiny_models import tiny_inputs, tiny_model

from photomask.attention.plugin.attached import Attachment
from photomask.attention.plugin.forwards import Forward
from photomask.attention.plugin.masks import PromptMask
from photomask.errors import LayoutError


def new_forward() -> Forward:
    inputs = tiny_inputs("internvl", [[3, "image", 2]])
    model = tiny_model("internvl")
    return Forward(model, Attachment(model, LiteralHandler()), model.config, inputs)


@pytest.fixture
def forward() -> Forward:
    return new_forward()


def mask_of(forward: Forward, **changed: Any) -> PromptMask:
    """What transformers would ask for, in one forward with an empty cache."""
    from transformers.masking_utils import causal_mask_function

    tokens = forward.layout(None).tokens
    asked = {
        "batch_size": 1,
        "q_length": tokens,
        "kv_length": tokens,
        "q_offset": 0,
        "kv_offset": 0,
        "mask_function": causal_mask_function,
        "attention_mask": None,
        "config": forward.module.config.text_config,
    }
    return PromptMask.make(**asked | changed)


def test_layers_on_one_device_share_a_call(forward: Forward):
    mask = mask_of(forward)
    call = mask.call(forward, torch.device("cpu"))
    assert mask.call(forward, torch.device("cpu")) is call
    moved = mask.call(forward, torch.device("meta"))
    assert moved.layout.device.type == "meta"
    assert (moved.rule, moved.query_start) == (call.rule, call.query_start)


def test_another_forward_gets_another_call(forward: Forward):
    mask = mask_of(forward)
    call = mask.call(forward, torch.device("cpu"))
    other = new_forward()
    assert mask.call(other, torch.device("cpu")) is not call


def test_tokens_that_nobody_gave_are_refused(forward: Forward):
    for changed in ({"q_offset": 3}, {"kv_length": 4}):
        with pytest.raises(LayoutError, match="prefix tuning"):
            mask_of(forward, **changed).call(forward, torch.device("cpu"))


def test_an_offset_that_a_static_cache_counts_on_is_kept(forward: Forward):
    offset = torch.tensor(0)
    mask = mask_of(forward, q_offset=offset, allow_is_causal_skip=False)
    offset.add_(5)
    tokens = forward.layout(None).tokens
    assert torch.equal(mask.own()[0, 0], torch.ones(tokens, tokens, dtype=torch.bool).tril())
    assert mask.own() is mask.own()


def test_a_prepared_mask_is_kept(forward: Forward):
    mask = mask_of(forward)
    assert mask_of(forward, attention_mask=mask) is mask
    assert mask.contiguous() is mask

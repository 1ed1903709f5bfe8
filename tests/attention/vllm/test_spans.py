"""The layout from a server's spans equals the layout from token ids, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attention.tiny_models import (
    END,
    FAMILY_NAMES,
    IMAGE,
    START,
    VIDEO,
    WITH_VIDEO,
    tiny_inputs,
    tiny_model,
)

from photomask.attention.encoding import encode
from photomask.attention.families import family_of, layout_of
from photomask.attention.layout import PromptLayout
from photomask.attention.vllm.spans import check_prompt, layout_of_spans
from photomask.errors import LayoutError
from photomask.zoo import picture_questions

FIELDS = ("kind", "image", "first", "stop", "ordinal")


def prompt_of(family: str, parts: list[int | str]) -> tuple[Any, dict[str, Any], list[Any]]:
    """Returns configuration, the processor's output, and spans found without Photomask."""
    inputs = tiny_inputs(family, [parts])
    processed = {key: value for key, value in inputs.items() if key != "attention_mask"}
    ids = processed["input_ids"][0].tolist()
    sizes = [9 if part == "video" else 72 if parts.count("image") == 1 else 17
             for part in parts if isinstance(part, str)]  # fmt: skip
    spans, position = [], 0
    while position < len(ids):
        stop = position
        while stop < len(ids) and ids[stop] == ids[position] and ids[position] in (IMAGE, VIDEO):
            stop += 1
        if stop > position and family == "llava_onevision":
            stop = position + sizes[len(spans)]
        if stop > position:
            spans.append((position, stop))
        position = max(stop, position + 1)
    return tiny_model(family).config, processed, spans


def assert_equal(found: PromptLayout, expected: PromptLayout) -> None:
    for field in FIELDS:
        mine, theirs = getattr(found, field), getattr(expected, field)
        assert mine.dtype == theirs.dtype, field
        assert torch.equal(mine, theirs), field


def prompts(family: str) -> list[list[int | str]]:
    videos = [[2, "video", 3, "image", 2]] if family in WITH_VIDEO else []
    return [[3, "image", 4], [5, "image", "image", 1, "image", 2], [1, "image", 6], *videos]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_layout_of_a_whole_prompt_is_that_of_its_token_ids(family: str) -> None:
    for parts in prompts(family):
        config, processed, spans = prompt_of(family, parts)
        expected = layout_of(config, **processed)
        found = layout_of_spans(family_of(config), spans, expected.tokens)
        assert_equal(found, expected)
        check_prompt(config, processed["input_ids"][0].tolist(), spans)


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if name != "llava_onevision"])
def test_layout_of_a_chunk_is_that_of_the_token_ids_so_far(family: str) -> None:
    config, processed, spans = prompt_of(family, prompts(family)[1])
    ids = processed["input_ids"]
    for tokens in range(1, ids.shape[1] + 1):
        cut = any(first < tokens < stop for first, stop in spans)
        if cut and family == "gemma3":
            with pytest.raises(LayoutError, match="must be computed in one chunk"):
                layout_of_spans(family_of(config), spans, tokens)
            continue
        expected = layout_of(config, ids[:, :tokens], complete=False)
        assert_equal(layout_of_spans(family_of(config), spans, tokens), expected)


def test_layout_of_a_chunk_without_delimiters_is_the_cut_layout() -> None:
    config, processed, spans = prompt_of("llava_onevision", [5, "image", "image", 1, "image", 2])
    whole = layout_of(config, **processed)
    for tokens in range(1, whole.tokens + 1):
        found = layout_of_spans(family_of(config), spans, tokens)
        for field in ("kind", "image", "first", "ordinal"):
            assert torch.equal(getattr(found, field), getattr(whole, field)[:, :tokens])
        assert torch.equal(found.stop, whole.stop[:, :tokens].clamp(max=tokens))


def test_spans_that_vllm_told_give_images_of_1296_tokens_with_delimiters() -> None:
    """The ranges are those of a run of vLLM 0.22.1 with Qwen2.5-VL, their ends included."""
    config = tiny_model("qwen2_5_vl").config
    ranges = [(4, 1299), (1302, 2597), (2600, 3895), (3898, 5193)]
    spans = [(first, last + 1) for first, last in ranges]
    layout = layout_of_spans(family_of(config), spans, 5203)
    assert layout.describe(0) == (
        "3 text, 1 start 0, 1296 image 0, 1 end 0, 1 start 1, 1296 image 1, 1 end 1, "
        "1 start 2, 1296 image 2, 1 end 2, 1 start 3, 1296 image 3, 1 end 3, 8 text"
    )
    ids = [5] * 3 + 4 * [START, *[IMAGE] * 1296, END] + [5] * 8
    assert len(ids) == layout.tokens
    check_prompt(config, ids, spans)


def test_spans_that_vllm_told_for_picture_questions_fit_the_ids_of_transformers() -> None:
    """The spans are those of the processor of vLLM 0.22.1 for this prompt."""
    model, processor = picture_questions.load_vision_language()
    prompt = picture_questions.held_out_prompts(1, pictures=6)[0]
    ids = encode(processor, prompt).inputs["input_ids"][0].tolist()
    spans = [(7, 56), (61, 110), (115, 164), (169, 218), (223, 272), (277, 326)]
    assert len(ids) == 338
    check_prompt(model.config, ids, spans)


@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=4),
    behind=st.integers(0, 5),
)
def test_layout_of_spans_passes_the_checks_of_layouts(
    images: list[tuple[int, int]], behind: int
) -> None:
    family = family_of(tiny_model("qwen2_vl").config)
    position, spans = 0, []
    for text, size in images:
        spans.append((position + text + 1, position + text + 1 + size))
        position += text + size + 2
    for tokens in (position + behind, (position + behind) // 2):
        if tokens:
            found = layout_of_spans(family, spans, tokens)
            assert_equal(found, PromptLayout.of(found.kind, found.image))


@pytest.mark.parametrize(
    ("spans", "ids"),
    [
        ([(2, 4)], [5, START, IMAGE, IMAGE, IMAGE, END, 5]),  # too short
        ([(2, 5)], [5, 5, IMAGE, IMAGE, IMAGE, END, 5]),  # no delimiter
        ([], [5, START, IMAGE, END, 5]),  # image tokens in the text
        ([(2, 4), (4, 6)], [5, START, *[IMAGE] * 4, END]),  # one run, two spans
        ([(2, 9)], [5, START, IMAGE, IMAGE, END]),  # behind the prompt
    ],
)
def test_spans_that_token_ids_do_not_confirm_are_refused(
    spans: list[tuple[int, int]], ids: list[int]
) -> None:
    with pytest.raises(LayoutError, match="Qwen2-VL"):
        check_prompt(tiny_model("qwen2_vl").config, ids, spans)


def test_image_tokens_outside_spans_are_refused_in_a_family_without_delimiters() -> None:
    config = tiny_model("llava_onevision").config
    check_prompt(config, [5, IMAGE, IMAGE, IMAGE, 5], [(1, 2), (2, 4)])
    with pytest.raises(LayoutError, match="token 3 of the prompt has id 60"):
        check_prompt(config, [5, IMAGE, IMAGE, IMAGE, 5], [(1, 3)])


def test_text_that_only_names_a_delimiter_is_accepted() -> None:
    check_prompt(tiny_model("qwen2_vl").config, [5, START, 6], [])


def test_an_image_longer_than_the_sliding_window_is_refused() -> None:
    config, ids = tiny_model("qwen2_vl").config, [START, *[IMAGE] * 6, END]
    check_prompt(config, ids, [(1, 7)], window=6)
    with pytest.raises(LayoutError, match="longer than the sliding window of 5 tokens"):
        check_prompt(config, ids, [(1, 7)], window=5)


def test_layout_is_made_on_the_device_that_is_asked_for() -> None:
    family = family_of(tiny_model("qwen2_vl").config)
    layout = layout_of_spans(family, [(1, 3)], 5, torch.device("meta"))
    assert layout.device.type == "meta"
    assert layout.kind.shape == (1, 5)

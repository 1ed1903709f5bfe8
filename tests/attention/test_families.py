"""Which token belongs to which image: told for every family, never guessed."""

from typing import Any

import pytest
import torch
from tests.attention.tiny_models import (
    END,
    FAMILY_NAMES,
    IMAGE,
    START,
    VIDEO,
    tiny_inputs,
    tiny_model,
)

from photomask.attention.families import FAMILIES, family_of, layout_of
from photomask.attention.layout import TokenKind
from photomask.errors import LayoutError, UsageError


def config_of(family: str) -> Any:
    """The configuration of a tiny model."""
    return tiny_model(family).config


def drawn(family: str, *rows: str, complete: bool = True, **processed: Any) -> list[str]:
    """Draws the layout of prompts that are written down as letters.

    `t` text, `s` start, `i` image, `v` video, `e` end, `.` padding, other letters other text.
    """
    tokens = {"s": START, "i": IMAGE, "v": VIDEO, "e": END, ".": 0}
    ids = torch.tensor([[tokens.get(letter, ord(letter)) for letter in row] for row in rows])
    mask = torch.tensor([[letter != "." for letter in row] for row in rows])
    layout = layout_of(config_of(family), ids, mask, complete=complete, **processed)
    return [layout.describe(row) for row in range(len(rows))]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_every_image_of_a_processors_prompt_is_found(family: str, padding: str):
    inputs = tiny_inputs(family, [[3, "image", 2, "image", "image", 4], [2, "image", 3]], padding)
    layout = layout_of(config_of(family), **inputs)
    assert layout.image_counts == [3, 1]
    assert torch.equal(layout.kind == TokenKind.PADDING, inputs["attention_mask"] == 0)
    assert torch.equal(layout.kind == TokenKind.IMAGE, inputs["input_ids"] == IMAGE)
    delimited = family != "llava_onevision"
    starts = (layout.kind == TokenKind.START).sum(1).tolist()
    assert starts == ([3, 1] if delimited else [0, 0])
    assert (layout.kind == TokenKind.END).sum(1).tolist() == starts


def test_the_drawing_of_a_prompt():
    assert drawn("qwen2_vl", "tsiiesiett", "....tsiiie") == [
        "1 text, 1 start 0, 2 image 0, 1 end 0, 1 start 1, 1 image 1, 1 end 1, 2 text",
        "4 padding, 1 text, 1 start 0, 3 image 0, 1 end 0",
    ]


def test_a_prompt_without_images_is_all_text():
    for family in FAMILY_NAMES:
        assert drawn(family, "ttt.", "tttt") == ["3 text, 1 padding", "4 text"]


def test_a_video_of_qwen_2_is_one_segment_and_of_qwen_3_one_a_frame():
    grid = torch.tensor([[2, 4, 2]])
    assert drawn("qwen2_5_vl", "tsvvvvet", video_grid_thw=grid) == [
        "1 text, 1 start 0, 4 image 0, 1 end 0, 1 text"
    ]
    assert drawn("qwen3_vl", "tsvvetsvve", video_grid_thw=grid) == [
        "1 text, 1 start 0, 2 image 0, 1 end 0, 1 text, 1 start 1, 2 image 1, 1 end 1"
    ]


def test_neighbours_delimit_the_images_of_internvl():
    assert drawn("internvl", "taiibtaib", "taib.....") == [
        "1 text, 1 start 0, 2 image 0, 1 end 0, 1 text, 1 start 1, 1 image 1, 1 end 1",
        "1 text, 1 start 0, 1 image 0, 1 end 0, 5 padding",
    ]


def test_adjacent_images_without_delimiters_are_told_apart_by_counts():
    one = 17  # 4 x 4 and a newline
    assert drawn(
        "llava_onevision",
        "t" + "i" * 2 * one + "t",
        "." * 17 + "t" + "i" * one + "t",
        image_sizes=torch.tensor([[16, 16]] * 3),
        batch_num_images=torch.tensor([3, 0]),  # not tiled; whose they are, the tokens tell
    ) == [
        f"1 text, {one} image 0, {one} image 1, 1 text",
        f"17 padding, 1 text, {one} image 0, 1 text",
    ]


@pytest.mark.parametrize(
    "size", [(16, 16), (10, 33), (33, 10), (32, 32), (5, 64), (40, 41), (200, 100)]
)
def test_a_tiled_image_has_as_many_tokens_as_the_model_makes(size: tuple[int, int]):
    model = tiny_model("llava_onevision")
    with torch.no_grad():
        pixels, sizes = torch.randn(1, 5, 3, 16, 16), torch.tensor([size])
        features = model.model.get_image_features(pixels, sizes, return_dict=True).pooler_output
    [length] = family_of(model.config).lengths(model.config, {"image_sizes": sizes})["image"]
    assert length == len(features[0])


def test_large_mosaics_are_shrunk_as_the_model_does():
    from transformers import LlavaOnevisionForConditionalGeneration

    config = config_of("llava_onevision").__class__.from_dict(
        config_of("llava_onevision").to_dict()
    )
    config.image_grid_pinpoints = [[16 * rows, 16 * 5] for rows in range(1, 6)]
    config.vision_aspect_ratio = "anyres_max_4"
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    for size in ((80, 80), (70, 80), (30, 79)):
        with torch.no_grad():
            features = model.model.get_image_features(
                torch.randn(1, 26, 3, 16, 16), torch.tensor([size]), return_dict=True
            ).pooler_output
        sizes = {"image_sizes": torch.tensor([size])}
        assert family_of(config).lengths(config, sizes)["image"] == [len(features[0])]


def test_an_image_may_be_open_while_more_tokens_follow():
    for family in ("qwen2_vl", "gemma3", "internvl"):
        assert drawn(family, "tsii", complete=False) == ["1 text, 1 start 0, 2 image 0"]
        assert drawn(family, "tsiie", complete=False) == ["1 text, 1 start 0, 2 image 0, 1 end 0"]
        assert drawn(family, "tts", complete=False) == ["3 text"]
        assert drawn(family, ".tts", complete=False) == ["1 padding, 3 text"]


@pytest.mark.parametrize(
    ("family", "row", "reason"),
    [
        ("qwen2_vl", "ttiie", "position 2: image tokens without a start token"),
        ("qwen2_vl", "tsett", "position 1: start token without image tokens"),
        ("qwen2_vl", "tsiit", "position 3: image tokens without an end token"),
        ("qwen2_vl", "tsiis", "position 4: start token without image tokens"),
        ("qwen2_vl", "tsivve", "position 3: image tokens without a start token"),
        ("qwen2_vl", "tsii", "position 3: the prompt ends inside an image"),
        ("qwen2_vl", "ts", "position 1: start token without image tokens"),
        ("qwen2_vl", "tset", "position 1: start token without image tokens"),
        ("qwen2_vl", "ttet", "position 2: end token without image tokens"),
        ("qwen2_vl", "tsii.", "position 3: the prompt ends inside an image"),
        ("qwen2_vl", ".iie", "position 1: image tokens without a start token"),
        ("gemma3", "tsitsie", "position 2: image tokens without an end token"),
        ("internvl", "iibt", "position 0: no start token before the image"),
        ("internvl", ".iibt", "position 1: no start token before the image"),
        ("internvl", "tsii", "position 3: the prompt ends inside an image"),
        ("internvl", "taibcid", "position 4: the token before this image is not the one"),
        ("internvl", "taibaic", "position 6: the token behind this image is not the one"),
        ("internvl", "taiaia", "position 3: one token between two images"),
        ("llava_onevision", "tiit", "position 1: image tokens, and nothing tells"),
        ("llava_onevision", "tvt", "position 1: video tokens, and nothing tells"),
    ],
)
def test_what_cannot_be_told_is_refused(family: str, row: str, reason: str):
    with pytest.raises(LayoutError, match=f"prompt 1, {reason}"):
        drawn(family, "t" * len(row), row)


def test_counts_that_do_not_fit_the_tokens_are_refused():
    grid = torch.tensor([[1, 4, 2], [1, 2, 2]])
    assert drawn("qwen2_vl", "siiesie", image_grid_thw=grid)
    with pytest.raises(LayoutError, match=r"position 5: 2 tokens of image 1 of.* announced 1"):
        drawn("qwen2_vl", "siiesiie", image_grid_thw=grid)
    with pytest.raises(LayoutError, match="announced no"):
        drawn("qwen2_vl", "siiesiesie", image_grid_thw=grid)
    with pytest.raises(LayoutError, match="1 image segments among"):
        drawn("qwen2_vl", "siie", image_grid_thw=grid)
    with pytest.raises(LayoutError, match="announced 16"):
        drawn("gemma3", "siie", pixel_values=torch.zeros(1))
    sizes = torch.tensor([[16, 16]] * 2)
    counts = torch.tensor([2])
    with pytest.raises(LayoutError, match="33 image tokens, but the processor announced"):
        drawn("llava_onevision", "i" * 33, image_sizes=sizes, batch_num_images=counts)
    with pytest.raises(LayoutError, match="position 31: the image tokens before this one end"):
        drawn(
            "llava_onevision",
            "i" * 30 + "t" + "i" * 4,
            image_sizes=sizes,
            batch_num_images=counts,
        )


def test_shapes_that_do_not_fit_are_refused():
    config = config_of("qwen2_vl")
    with pytest.raises(LayoutError, match=r"\[prompts, tokens\]"):
        layout_of(config, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(LayoutError, match="attention_mask"):
        layout_of(config, torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 3))


def test_every_family_names_configurations_that_transformers_knows():
    from transformers import CONFIG_MAPPING

    for family in FAMILIES:
        for model_type in family.model_types:
            config = CONFIG_MAPPING[model_type]()
            assert family_of(config) is family
            named = [name for name in (family.start_id, family.end_id) if name]
            assert all(isinstance(getattr(config, name), int) for name in named)


def test_other_models_are_refused_by_name():
    from transformers import LlamaConfig

    with pytest.raises(UsageError, match=r"'llama'.*qwen2_vl, qwen2_5_vl, qwen3_vl"):
        family_of(LlamaConfig())
    with pytest.raises(UsageError, match="None"):
        family_of(object())

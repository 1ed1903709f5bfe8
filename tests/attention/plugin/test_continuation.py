"""Prompts that arrive in pieces: chunked prefill, further turns, caches of all kinds."""

import copy
import inspect
from typing import Any

import pytest
import torch
import transformers
from tests.attention.caches import cache_of, holding
from tests.attention.plugin.handlers import DENSE, LAYERS, MIXED, LiteralHandler
from tests.attention.tiny_models import (
    END,
    FAMILY_NAMES,
    IMAGE,
    PAD,
    START,
    TEXT_IDS,
    tiny_inputs,
    tiny_model,
)
from torch import Tensor

from photomask.attention.plugin import attach
from photomask.errors import LayoutError, PlanError

Inputs = dict[str, Tensor]

NO_DELIMITERS = [60, 61, 62, 63]  # an untrained model may write them, and a prompt must not
PARTS = [3, "image", 2, "image", 5, "image", 4]


def attached(family: str) -> Any:
    """Returns a model with all patterns in all layers."""
    return attach(tiny_model(family), LiteralHandler())


def pieces(family: str, inputs: Inputs, cuts: list[int]) -> list[Inputs]:
    """Cuts one prompt at positions; each piece gets the pixels of the images inside."""
    made = []
    places = {"gemma3": 16, "internvl": 4}  # tokens of one entry of pixel_values
    pixels = inputs["pixel_values"]
    sizes = (inputs["input_ids"] == IMAGE).sum()
    per_entry = places.get(family, int(sizes) // len(pixels))
    used = 0
    for start, stop in zip([0, *cuts], [*cuts, inputs["input_ids"].shape[1]], strict=True):
        ids = inputs["input_ids"][:, start:stop]
        piece = {"input_ids": ids, "attention_mask": inputs["attention_mask"][:, :stop]}
        entries = int((ids == IMAGE).sum()) // per_entry
        if entries:
            piece["pixel_values"] = pixels[used : used + entries]
            if family == "llava_onevision":
                piece["image_sizes"] = inputs["image_sizes"][used : used + entries]
                piece["batch_num_images"] = torch.tensor([entries])
        if family == "gemma3":  # read by position in the whole sequence
            piece["token_type_ids"] = inputs["token_type_ids"][:, :stop]
        used += entries
        made.append(piece)
    return made


def behind_images(inputs: Inputs, *images: int) -> list[int]:
    """Returns positions shortly behind the n-th run of image tokens."""
    image = (inputs["input_ids"][0] == IMAGE).int()
    ends = (image.diff() == -1).nonzero().flatten() + 3
    return [int(ends[each]) for each in images]


@torch.no_grad()
def whole(model: Any, inputs: Inputs) -> Tensor:
    """Logits of one forward over everything."""
    return model(**inputs).logits


@torch.no_grad()
def piecewise(model: Any, parts: list[Inputs], cache: Any = None) -> Tensor:
    """Logits of one forward a piece, with one cache."""
    found = []
    for part in parts:
        output = model(**part, **holding(cache), use_cache=True)
        cache = cache_of(output)
        found.append(output.logits)
    return torch.cat(found, 1)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["gemma3", "internvl"])
def test_pieces_of_a_prompt_give_what_the_whole_gives(family: str):
    inputs = tiny_inputs(family, [PARTS])
    model = attached(family)
    parts = pieces(family, inputs, behind_images(inputs, 0, 1))
    assert_same(piecewise(model, parts), whole(model, inputs))


def test_pieces_of_a_family_without_delimiters():
    model = attached("llava_onevision")
    inputs = tiny_inputs("llava_onevision", [[3, "image", "image", 2, "image", "image", 4]])
    parts = pieces("llava_onevision", inputs, behind_images(inputs, 0))
    assert_same(piecewise(model, parts), whole(model, inputs))


def test_a_static_cache_gives_what_the_whole_gives():
    from transformers import StaticCache

    for family in ("gemma3", "internvl"):
        inputs = tiny_inputs(family, [PARTS])
        model = attached(family)
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=100)
        parts = pieces(family, inputs, behind_images(inputs, 0, 1))
        assert_same(piecewise(model, parts, cache), whole(model, inputs))


class Stream:
    """Stands for a stream of a GPU: what is copied there is complete at once."""

    def wait_stream(self, other: object) -> None:
        """Waits for nothing."""

    def __enter__(self) -> None:
        """Makes it the stream of what follows, which it is anyway."""

    def __exit__(self, *_: object) -> None:
        """Nothing was changed."""


@pytest.mark.parametrize("kind", ["DynamicCache", "StaticCache"])
def test_an_offloaded_cache_gives_what_the_whole_gives(kind: str, monkeypatch: pytest.MonkeyPatch):
    # Only the streams are no GPU's: transformers' own cache offloads and fetches each layer.
    monkeypatch.setattr(torch.cuda, "default_stream", lambda *_: Stream())
    monkeypatch.setattr(torch, "Stream", Stream)
    offloaded = []
    for family in ("gemma3", "internvl"):
        inputs, model = tiny_inputs(family, [PARTS]), attached(family)
        room = {"max_cache_len": 100} if kind == "StaticCache" else {}
        config = model.config.get_text_config()
        cache = getattr(transformers, kind)(config=config, offloading=True, **room)
        offload = cache.offload
        cache.offload = lambda *a, call=offload, **k: (offloaded.append(a), call(*a, **k))
        parts = pieces(family, inputs, behind_images(inputs, 0, 1))
        assert_same(piecewise(model, parts, cache), whole(model, inputs))
        assert offloaded


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
def test_generate_with_an_offloaded_cache_writes_the_same(implementation: str):
    model = tiny_model("internvl").cuda()
    inputs = {name: x.cuda() for name, x in tiny_inputs("internvl", [PARTS]).items()}
    asked = {**inputs, "max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}
    asked["cache_implementation"] = implementation
    expected = model.generate(**asked)
    assert torch.equal(attach(model, LiteralHandler(DENSE)).generate(**asked), expected)


def test_a_conversation_goes_on_after_decoding():
    model = attached("internvl")
    first = tiny_inputs("internvl", [[3, "image", 2]])
    ways = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": PAD}
    ways |= {"suppress_tokens": NO_DELIMITERS, "return_dict_in_generate": True}
    turn = model.generate(**first, **ways)
    second = tiny_inputs("internvl", [[1, "image", 4]], seed=1)
    ids = torch.cat([turn.sequences, second["input_ids"]], 1)
    pixels = torch.cat([first["pixel_values"], second["pixel_values"]])
    everything = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        # The last token written is not in the cache yet.
        found = model(
            input_ids=ids[:, cache_of(turn).get_seq_length() :],
            pixel_values=second["pixel_values"],
            attention_mask=everything["attention_mask"],
            **holding(cache_of(turn)),
        ).logits
    expected = whole(model, {**everything, "pixel_values": pixels})
    assert_same(found, expected[:, -found.shape[1] :])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_chunked_prefill_of_generate_cuts_through_images(family: str):
    model = tiny_model(family)
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this version of transformers loses the pixels of a chunk")
    inputs = tiny_inputs(family, [[3, "image", 2, "image", 4], [2, "image", 3]])
    ways = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": PAD, "output_logits": True}
    ways |= {"return_dict_in_generate": True, "suppress_tokens": NO_DELIMITERS}
    # A chunk of Gemma does not see what its image has in the next one, so nothing but the model's
    # own chunks compares.
    handler = LiteralHandler(DENSE if family == "gemma3" else MIXED)
    sparse = attach(model, handler)
    if family == "llava_onevision":
        with pytest.raises(LayoutError, match="nothing tells where one image ends"):
            sparse.generate(**inputs, **ways, prefill_chunk_size=10)
        return
    found = sparse.generate(**inputs, **ways, prefill_chunk_size=10)
    assert len(handler.calls) > LAYERS
    if family == "gemma3":
        expected = model.generate(**inputs, **ways, prefill_chunk_size=10)
    else:
        expected = sparse.generate(**inputs, **ways)
    assert_same(torch.stack(found.logits), torch.stack(expected.logits))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_chunks_of_one_token_are_chunks_of_a_prompt(family: str):
    model = tiny_model(family)
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this version of transformers loses the pixels of a chunk")
    inputs = tiny_inputs(family, [[3, "image", 2, "image", 4]])
    ways = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": PAD, "output_logits": True}
    ways |= {"return_dict_in_generate": True, "suppress_tokens": NO_DELIMITERS}
    sparse = attach(model, LiteralHandler())
    found = sparse.generate(**inputs, **ways, prefill_chunk_size=1)
    assert_same(torch.stack(found.logits), torch.stack(sparse.generate(**inputs, **ways).logits))


def test_delimiters_that_the_model_writes_are_text():
    """They stand alone, where a prompt in chunks of one token has an image between them."""
    model = attached("gemma3")
    first = {"input_ids": tiny_inputs("gemma3", [[3, "image", 2]])["input_ids"]}
    first["pixel_values"] = tiny_inputs("gemma3", [[3, "image", 2]])["pixel_values"]
    second = tiny_inputs("gemma3", [[1, "image", 4]], seed=1)
    found = []
    for written in ([START, END, END, START], [5, 6, 7, 8]):
        handler = LiteralHandler()
        model = attach(tiny_model("gemma3"), handler)
        with torch.no_grad():
            cache = cache_of(model(**first))
            for token in written:
                model(input_ids=torch.tensor([[token]]), **holding(cache))
            pixels = second["pixel_values"]
            model(input_ids=second["input_ids"], pixel_values=pixels, **holding(cache))
        found.append(handler.calls[-1][1].layout.describe(0))
    assert found[0] == found[1]


def test_a_cropped_cache_forgets_what_was_cropped():
    model = attached("internvl")
    inputs = tiny_inputs("internvl", [PARTS])
    parts = pieces("internvl", inputs, behind_images(inputs, 0, 1))
    with torch.no_grad():
        cache = cache_of(model(**parts[0]))
        before = cache.get_seq_length()
        model(
            input_ids=torch.tensor([[TEXT_IDS[0]] * 3]),
            **holding(cache),
            attention_mask=torch.ones(1, before + 3),
        )
        cache.crop(-3)
    found = piecewise(model, parts[1:], cache)
    assert_same(found, whole(model, inputs)[:, before:])


def test_a_copied_cache_knows_its_tokens():
    model = attached("internvl")
    inputs = tiny_inputs("internvl", [PARTS])
    parts = pieces("internvl", inputs, behind_images(inputs, 0, 1))
    with torch.no_grad():
        cache = cache_of(model(**parts[0]))
    other = copy.deepcopy(cache)
    expected = whole(model, inputs)[:, cache.get_seq_length() :]
    assert_same(piecewise(model, parts[1:], cache), expected)
    assert_same(piecewise(model, parts[1:], other), expected)


def test_a_cache_of_another_model_takes_text_but_no_images():
    model, original = attached("internvl"), tiny_model("internvl")
    inputs = tiny_inputs("internvl", [PARTS])
    parts = pieces("internvl", inputs, behind_images(inputs, 0, 1))
    with torch.no_grad():
        cache = cache_of(original(**parts[0]))
        with pytest.raises(LayoutError, match="start with an empty cache"):
            model(**parts[1], **holding(cache))
        cache = cache_of(original(**parts[0]))
        text = torch.tensor([[TEXT_IDS[0]] * 3])
        found = model(input_ids=text, **holding(copy.deepcopy(cache))).logits
        assert torch.equal(found, original(input_ids=text, **holding(cache)).logits)


def test_token_types_of_a_chunk_alone_are_refused():
    """Gemma reads them by position, so its own mask would be wrong."""
    model = attached("gemma3")
    inputs = tiny_inputs("gemma3", [PARTS])
    parts = pieces("gemma3", inputs, behind_images(inputs, 0))
    with torch.no_grad():
        cache = cache_of(model(**parts[0]))
        start = cache.get_seq_length()
        parts[1]["token_type_ids"] = parts[1]["token_type_ids"][:, start:]
        with pytest.raises(PlanError, match="token types of all tokens"):
            model(**parts[1], **holding(cache))

"""Caches that someone else has touched: the layout follows what they hold, or it is an error."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.attention.caches import holding
from tests.attention.plugin.handlers import LiteralHandler
from tests.attention.tiny_models import TEXT_IDS, tiny_inputs, tiny_model
from torch import Tensor

from photomask.attention.plugin import attach
from photomask.errors import LayoutError

Inputs = dict[str, Tensor]


def prompt(family: str, parts: list[int | str], seed: int = 0) -> Inputs:
    """Returns one prompt without padding, and without what only the whole prompt would need."""
    inputs = tiny_inputs(family, [parts], seed=seed)
    return {name: inputs[name] for name in ("input_ids", "pixel_values") if name in inputs}


def dynamic(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config())


def static(model: Any) -> Any:
    from transformers import StaticCache

    return StaticCache(config=model.config.get_text_config(), max_cache_len=120)


CACHES = {"dynamic": dynamic, "static": static}


@torch.no_grad()
def run(model: Any, inputs: Inputs, cache: Any) -> Tensor:
    return model(**inputs, **holding(cache)).logits


def text(length: int) -> Inputs:
    return {"input_ids": torch.full((1, length), TEXT_IDS[1])}


@pytest.fixture
def original() -> Any:
    return tiny_model("internvl")


@pytest.fixture
def sparse(original: Any) -> Any:
    return attach(original, LiteralHandler())


FIRST: list[int | str] = [3, "image", 9, "image", 4]
OTHER: list[int | str] = [9, "image", 4, "image", 3, "image", 9]
SECOND: list[int | str] = [2, "image", 3]


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("longer", [False, True])
def test_what_the_original_wrote_after_a_reset_is_refused(
    kind: str, longer: bool, original: Any, sparse: Any
):
    cache = CACHES[kind](original)
    before, after = (FIRST, OTHER) if longer else (OTHER, FIRST)
    run(sparse, prompt("internvl", before), cache)
    cache.reset()
    run(original, prompt("internvl", after), cache)
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_the_same_prompt_written_by_the_original_is_refused_too(original: Any, sparse: Any):
    cache = dynamic(original)
    run(sparse, prompt("internvl", FIRST), cache)
    cache.reset()
    run(original, prompt("internvl", FIRST), cache)
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_text_of_the_converted_model_does_not_hide_who_wrote_before_it(original: Any, sparse: Any):
    cache = dynamic(original)
    run(sparse, prompt("internvl", FIRST), cache)
    cache.reset()
    run(original, text(9), cache)
    run(sparse, text(1), cache)
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_what_the_original_wrote_where_the_cache_was_cropped_is_refused(original: Any, sparse: Any):
    cache = dynamic(original)
    run(sparse, prompt("internvl", FIRST), cache)
    cache.crop(-6)
    run(original, text(6), cache)
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_keys_that_were_overwritten_are_refused(original: Any, sparse: Any):
    cache = static(original)
    run(sparse, prompt("internvl", FIRST), cache)
    cache.layers[-1].keys[0, 1, 5] += 0.5
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_a_reset_cache_begins_anew(original: Any, sparse: Any):
    cache = static(original)  # older versions fill a dynamic one with zeros, which is not empty
    run(sparse, prompt("internvl", OTHER), cache)
    cache.reset()
    first, second = prompt("internvl", FIRST), prompt("internvl", SECOND, seed=5)
    run(sparse, first, cache)
    assert_continues(run(sparse, second, cache), sparse, first, second)


def assert_continues(found: Tensor, model: Any, first: Inputs, second: Inputs) -> None:
    """Compares the logits of a second part with those of both parts in one forward."""
    whole = {
        name: torch.cat([part[name] for part in (first, second) if name in part], axis)
        for name, axis in (("input_ids", 1), ("pixel_values", 0))
    }
    with torch.no_grad():
        expected = model(**whole).logits[:, -found.shape[1] :]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


def test_a_cache_goes_from_one_converted_model_to_another(original: Any, sparse: Any):
    other = attach(original, LiteralHandler())
    cache = static(original)
    run(sparse, prompt("internvl", OTHER), cache)
    cache.reset()
    first, second = prompt("internvl", FIRST), prompt("internvl", SECOND, seed=5)
    run(other, first, cache)
    assert_continues(run(sparse, second, cache), sparse, first, second)


def reordered(cache: Any) -> list[int]:
    cache.reorder_cache(torch.tensor([2, 0, 1]))
    return [2, 0, 1]


def chosen(cache: Any) -> list[int]:
    cache.batch_select_indices(torch.tensor([2, 1]))
    return [2, 1]


def repeated(cache: Any) -> list[int]:
    cache.batch_repeat_interleave(2)
    return [0, 0, 1, 1, 2, 2]


# Gemma's images are of one size, so these have one length without padding.
ROWS: list[list[int | str]] = [[3, "image", 8], [8, "image", 3], [6, "image", 5]]


@pytest.mark.parametrize("move", [reordered, chosen, repeated])
def test_rows_that_move_take_their_layout_along(move: Callable[[Any], list[int]]):
    model = attach(tiny_model("gemma3"), LiteralHandler())
    rows = [aligned(parts, seed) for seed, parts in enumerate(ROWS)]
    cache = dynamic(model)
    run(model, joined(rows), cache)
    order = move(cache)
    run(model, joined([text(2)] * len(order)), cache)  # tokens that moved less often
    second = aligned([1, "image", 4], seed=7)
    found = run(model, joined([second] * len(order)), cache)
    for place, row in enumerate(order):
        alone = dynamic(model)
        for part in (rows[row], text(2), second):
            expected = run(model, part, alone)
        torch.testing.assert_close(found[place : place + 1], expected, atol=2e-5, rtol=2e-5)


def aligned(parts: list[int | str], seed: int) -> Inputs:
    """Returns one prompt of Gemma, whose length does not depend on the seed."""
    return prompt("gemma3", parts, seed)


def joined(rows: list[Inputs]) -> Inputs:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def test_keys_at_other_positions_are_refused():
    model = attach(tiny_model("gemma3"), LiteralHandler())
    cache = dynamic(model)
    run(model, joined([aligned(ROWS[0], 0), aligned(ROWS[1], 1)]), cache)
    for layer in cache.layers:
        layer.keys = torch.stack([layer.keys[0].roll(1, 1), layer.keys[1]])
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(model, joined([aligned([1, "image", 4], 7)] * 2), cache)


def test_beams_that_are_reordered_after_every_token_keep_their_layouts():
    model = attach(tiny_model("gemma3"), LiteralHandler())
    rows = [aligned(parts, seed) for seed, parts in enumerate(ROWS)]
    cache, histories = dynamic(model), [[row] for row in rows]
    run(model, joined(rows), cache)
    for step in range(4):
        order = [(step * row + 1) % 3 for row in range(3)]
        cache.reorder_cache(torch.tensor(order))
        tokens = [{"input_ids": torch.tensor([[TEXT_IDS[3 * step + row]]])} for row in range(3)]
        histories = [[*histories[old], token] for old, token in zip(order, tokens, strict=True)]
        run(model, joined(tokens), cache)
    second = aligned([1, "image", 4], 7)
    found = run(model, joined([second] * 3), cache)
    for place, history in enumerate(histories):
        alone = dynamic(model)
        for part in (*history, second):
            expected = run(model, part, alone)
        torch.testing.assert_close(found[place : place + 1], expected, atol=2e-5, rtol=2e-5)


def test_another_number_of_prompts_is_refused_before_the_cache_changes(sparse: Any):
    cache = dynamic(sparse)
    run(sparse, prompt("internvl", FIRST), cache)
    length = cache.get_seq_length()
    second = prompt("internvl", SECOND, seed=5)
    with pytest.raises(LayoutError, match="holds 1 prompts, but this forward brings 2"):
        run(sparse, joined([second, second]), cache)
    assert cache.layers[0].keys.shape[2] == length


def quantized(model: Any) -> Any:
    """A cache that keeps all keys but the last few rounded, as quanto's and HQQ's do."""
    from transformers.cache_utils import Cache, QuantizedLayer

    class Rounded(QuantizedLayer):
        def __init__(self) -> None:
            super().__init__(residual_length=16)

        def _quantize(self, tensor: Tensor, axis: int) -> Tensor:
            return (tensor * 64).round()

        def _dequantize(self, q_tensor: Tensor) -> Tensor:
            return q_tensor / 64

    return Cache(layers=[Rounded() for _ in range(model.config.text_config.num_hidden_layers)])


def test_a_quantized_cache_goes_on(original: Any, sparse: Any):
    first, second = prompt("internvl", FIRST), prompt("internvl", SECOND, seed=5)
    cache = quantized(original)
    run(sparse, first, cache)
    run(sparse, text(3), cache)
    copied = copy.deepcopy(cache)
    found = run(sparse, second, cache)
    assert torch.equal(run(sparse, second, copied), found)
    plain = dynamic(original)
    run(sparse, first, plain)
    run(sparse, text(3), plain)
    torch.testing.assert_close(found, run(sparse, second, plain), atol=0.2, rtol=0.2)


@pytest.mark.parametrize("touch", ["refill", "reorder"])
def test_a_quantized_cache_that_others_touched_is_refused(touch: str, original: Any, sparse: Any):
    cache = quantized(original)
    run(sparse, prompt("internvl", FIRST), cache)
    if touch == "refill":
        cache.reset()
        for layer in cache.layers:
            layer.is_initialized = False
        run(original, prompt("internvl", FIRST), cache)
    else:
        run(sparse, text(3), cache)
        cache.reorder_cache(torch.tensor([0]))
    with pytest.raises(LayoutError, match="start with an empty cache"):
        run(sparse, prompt("internvl", SECOND, seed=5), cache)


def test_a_cache_that_shows_no_keys_takes_text_but_no_images(original: Any, sparse: Any):
    cache = dynamic(original)
    run(sparse, prompt("internvl", FIRST), cache)

    class Hidden:
        """A cache of one's own that keeps its keys somewhere else."""

        def __init__(self, inner: Any):
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            if name in ("layers", "inner") or name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.inner, name)

    hidden = Hidden(dynamic(original))
    run(sparse, prompt("internvl", FIRST), hidden)
    run(sparse, text(2), hidden)
    with pytest.raises(LayoutError, match="use a DynamicCache or a StaticCache"):
        run(sparse, prompt("internvl", SECOND, seed=5), hidden)

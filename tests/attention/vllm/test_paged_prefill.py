"""Sparse prefill over pages equals the written-out masks, for every kind of chunk and rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attention.tiny_models import tiny_model
from tests.attention.vllm.scenes import (
    KEY_HEADS,
    MIXED,
    SCALE,
    SINKS,
    SIZE,
    Request,
    Scene,
    scene_of,
)
from torch import Tensor

from photomask.attention.families import family_of
from photomask.attention.kernels import LayerHeads
from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.vllm.paged_prefill import (
    PlannedLayer,
    attend_request,
    gather_pages,
    pages_of,
)
from photomask.attention.vllm.steps import divide_step

PATTERNS = (Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK, Pattern.DENSE)
FULL = DenseRule()
CPU = torch.device("cpu")


def attend(
    scene: Scene, patterns: tuple[Pattern, ...], rule: DenseRule, family: str = "qwen2_5_vl"
) -> tuple[Tensor, list[int]]:
    """Computes the requests with images, and returns the output and the places of its rows."""
    step = divide_step(
        family_of(tiny_model(family).config),
        scene.query_starts,
        scene.lengths,
        scene.spans,
        CPU,
    )
    assert step is not None
    output = torch.full(scene.query.shape, torch.nan)
    layer = PlannedLayer(0, LayerHeads.of(patterns, scene.key_cache.shape[2], CPU), rule, SINKS)
    for request in step.images:
        attend_request(
            request,
            layer,
            scene.query,
            scene.key_cache,
            scene.value_cache,
            scene.block_table,
            SCALE,
            output,
        )
    return output, [place for each in step.images for place in range(10_000)[each.rows]]


@pytest.mark.parametrize("rule", [FULL, DenseRule(window=13)])
def test_requests_of_a_mixed_batch_equal_their_masks(rule: DenseRule) -> None:
    scene = scene_of(MIXED)
    output, places = attend(scene, PATTERNS, rule)
    expected = scene.literal(PATTERNS, rule)
    assert torch.allclose(output[places].double(), expected[places], atol=1e-5)
    rest = [place for place in range(len(output)) if place not in places]
    assert bool(output[rest].isnan().all()), "rows of other requests were written"


def test_images_in_both_directions_equal_their_masks() -> None:
    rule = DenseRule(bidirectional=True, window=20, window_spares_own_image=True)
    scene = scene_of([Request(45, 45, ((3, 14), (17, 40))), Request(30, 1)])
    output, places = attend(scene, PATTERNS, rule, "gemma3")
    expected = scene.literal(PATTERNS, rule, "gemma3")
    assert torch.allclose(output[places].double(), expected[places], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chunks_of_a_prompt_together_equal_the_whole_prompt(data: st.DataObject) -> None:
    length, seed = data.draw(st.integers(24, 60)), data.draw(st.integers(0, 99))
    spans = ((2, 12), (14, 22))
    cuts = data.draw(st.lists(st.integers(1, length - 1), max_size=3, unique=True))
    whole = scene_of([Request(length, length, spans)], seed=seed)
    expected = whole.literal(PATTERNS, FULL)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), length], strict=True):
        if not any(first < stop and last > start for first, last in spans):
            continue
        chunk = Scene(
            (Request(stop, stop - start, spans),),
            whole.query[start:stop],
            whole.key_cache,
            whole.value_cache,
            whole.block_table,
            whole.keys,
            whole.values,
        )
        output, _ = attend(chunk, PATTERNS, FULL)
        assert torch.allclose(output.double(), expected[start:stop], atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_tensor_parallelism_together_equal_one(ranks: int) -> None:
    """Two ranks have a key head each; of four, two have a copy of the same one."""
    scene = scene_of(MIXED)
    expected = scene.literal(PATTERNS, FULL)
    own = len(PATTERNS) // ranks
    for rank in range(ranks):
        heads = slice(rank * own, (rank + 1) * own)
        first = rank * KEY_HEADS // ranks
        keys = slice(first, first + max(1, KEY_HEADS // ranks))
        share = Scene(
            scene.requests,
            scene.query[:, heads],
            scene.key_cache[:, :, keys],
            scene.value_cache[:, :, keys],
            scene.block_table,
            tuple(key[:, keys] for key in scene.keys),
            tuple(value[:, keys] for value in scene.values),
        )
        output, places = attend(share, PATTERNS[heads], FULL)
        assert torch.allclose(output[places].double(), expected[places, heads], atol=1e-5)


def test_pages_are_gathered_in_the_order_of_the_request() -> None:
    scene = scene_of([Request(37, 1), Request(50, 1)])
    for row, request in enumerate(scene.requests):
        found = gather_pages(scene.key_cache, scene.block_table[row], request.length)
        assert found.shape == (1, KEY_HEADS, request.length, SIZE)
        assert torch.equal(found[0].transpose(0, 1), scene.keys[row])


@pytest.mark.parametrize("version", ["0.22.1", "0.33.0"])
def test_both_forms_of_the_cache_give_the_same_pages(version: str) -> None:
    scene = scene_of([Request(37, 1)])
    key, value = pages_of(scene.kv_cache(version), SIZE)
    assert torch.equal(key.nan_to_num(), scene.key_cache.nan_to_num())
    assert torch.equal(value.nan_to_num(), scene.value_cache.nan_to_num())


def test_a_layer_is_the_servers_own_only_if_all_heads_are_dense_and_causal() -> None:
    def layer(pattern: Pattern, rule: DenseRule) -> PlannedLayer:
        patterns = (Pattern.DENSE, pattern)
        return PlannedLayer(0, LayerHeads.of(patterns, 1, CPU), rule, SINKS)

    assert layer(Pattern.DENSE, FULL).as_the_server
    assert layer(Pattern.DENSE, DenseRule(window=4)).as_the_server
    assert not layer(Pattern.SINK, FULL).as_the_server
    assert not layer(Pattern.DENSE, DenseRule(bidirectional=True)).as_the_server

"""A step is divided by who computes each request; nothing is computed twice or left out."""

from __future__ import annotations

import torch
from tests.attention.tiny_models import tiny_model
from tests.attention.vllm.scenes import MIXED, Request, scene_of

from photomask.attention.families import family_of
from photomask.attention.patterns import DenseRule, SinkRule
from photomask.attention.vllm.steps import divide_step

FAMILY = family_of(tiny_model("qwen2_5_vl").config)
CPU = torch.device("cpu")


def test_only_chunks_with_image_rows_follow_the_plan() -> None:
    scene = scene_of(MIXED)
    step = divide_step(FAMILY, scene.query_starts, scene.lengths, scene.spans, CPU)
    assert step is not None
    assert [request.row for request in step.images] == [1, 3]
    assert [request.query_start for request in step.images] == [0, 21]
    assert [request.layout.tokens for request in step.images] == [45, 33]
    assert step.others is not None
    assert step.others.rows.tolist() == [0, 2, 4, 5]


def test_every_query_belongs_to_exactly_one_side() -> None:
    scene = scene_of(MIXED)
    step = divide_step(FAMILY, scene.query_starts, scene.lengths, scene.spans, CPU)
    assert step is not None
    assert step.others is not None
    mine = [place for request in step.images for place in range(10_000)[request.rows]]
    theirs = step.others.tokens.tolist()
    assert sorted(mine + theirs) == [*range(len(scene.query))]
    assert step.others.query_starts.tolist() == [0, 1, 2, 22, 31]
    assert (step.others.longest_query, step.others.longest) == (20, 50)


def test_a_step_without_image_rows_is_the_servers_own() -> None:
    scene = scene_of([Request(40, 1, ((3, 20),)), Request(12, 12)])
    assert divide_step(FAMILY, scene.query_starts, scene.lengths, scene.spans, CPU) is None


def test_rows_that_pad_the_batch_are_left_out() -> None:
    spans = {0: ((1, 5),)}
    step = divide_step(FAMILY, [0, 8, 8, 8], [8, 0, 0], spans, CPU)
    assert step is not None
    assert step.others is None
    assert len(step.images) == 1


def test_layers_share_one_schedule_for_each_rule() -> None:
    step = divide_step(FAMILY, [0, 8], [8], {0: ((1, 5),)}, CPU)
    assert step is not None
    request = step.images[0]
    full, window = DenseRule(), DenseRule(window=4)
    assert request.call(full) is request.call(DenseRule())
    schedule = request.call(full).schedule(SinkRule())
    assert request.call(full).schedule(SinkRule()) is schedule
    assert request.call(window).schedule(SinkRule()) is not schedule

"""The interval table stands for exactly what the patterns define."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.attention import layouts

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible
from photomask.attention.schedule import Schedule, build_schedule
from photomask.errors import UsageError


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_the_table_equals_the_definition(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens))
    tile_rows = data.draw(st.sampled_from([16, 32]))
    schedule = build_schedule(layout, sinks, rule, start, tile_rows=tile_rows)
    for pattern in Pattern:
        expected = visible(layout, pattern, sinks, rule, start)
        assert torch.equal(schedule.expand(pattern), expected), layout.describe(0)


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_a_tile_sums_up_its_rows(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens))
    schedule = build_schedule(layout, sinks, rule, start, tile_rows=16)
    used = schedule.rows >= 0
    huge = torch.iinfo(torch.int32).max
    for pattern in Pattern:
        low = schedule.low[pattern]
        high = schedule.high[pattern]
        entry = schedule.tiles[pattern]
        assert torch.equal(entry[:, 4], low.masked_fill(~used, huge).amin(1))
        assert torch.equal(entry[:, 5], low.amax(1))
        assert torch.equal(entry[:, 6], high.masked_fill(~used, huge).amin(1))
        assert torch.equal(entry[:, 7], high.amax(1))


@given(layouts.layouts(), st.data())
def test_every_row_has_one_tile_and_no_tile_mixes_images(layout, data):
    start = data.draw(st.integers(0, layout.tokens))
    schedule = build_schedule(layout, SinkRule(), DenseRule(), start, tile_rows=16)
    seen = []
    for prompt, rows in zip(schedule.prompts.tolist(), schedule.rows.tolist(), strict=True):
        rows = [row for row in rows if row >= 0]
        seen += [(prompt, row) for row in rows]
        assert rows == sorted(rows)
        kinds = {layout.kind[prompt, row].item() for row in rows}
        owners = {layout.image[prompt, row].item() for row in rows}
        if kinds & {TokenKind.IMAGE, TokenKind.PADDING}:
            assert len(kinds) == len(owners) == 1
    expected = [(b, q) for b in range(layout.batch) for q in range(start, layout.tokens)]
    assert sorted(seen) == expected


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_plainly_causal_is_what_a_causal_kernel_computes(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens - 1))
    schedule = build_schedule(layout, sinks, rule, start)
    causal = layout.positions <= layout.positions[start:, None]
    same = bool((visible(layout, Pattern.DENSE, sinks, rule, start) == causal).all())
    if rule.window is None or rule.window >= layout.tokens:
        assert schedule.plainly_causal == same, layout.describe(0)
    else:
        assert same or not schedule.plainly_causal


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_what_images_see_ahead_stands_behind_their_rows(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens - 1))
    schedule = build_schedule(layout, sinks, rule, start, tile_rows=16)
    causal = layout.positions <= layout.positions[start:, None]
    if not schedule.causal_and_ahead:
        return
    ahead = torch.zeros_like(causal).repeat(layout.batch, 1, 1)
    for tile, prompt in enumerate(schedule.prompts.tolist()):
        stops = schedule.high[Pattern.DENSE, tile].tolist()
        for row, stop in zip(schedule.rows[tile].tolist(), stops, strict=True):
            if row >= 0:
                ahead[prompt, row - start, row + 1 : stop] = True
    expected = visible(layout, Pattern.DENSE, sinks, rule, start)
    assert ahead.any()
    assert torch.equal(expected, causal | ahead)
    assert not (causal & ahead).any()


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules(), st.data())
def test_causal_and_ahead_is_both_directions_and_nothing_else(layout, sinks, rule, data):
    start = data.draw(st.integers(0, layout.tokens - 1))
    schedule = build_schedule(layout, sinks, rule, start)
    both = visible(layout, Pattern.DENSE, sinks, DenseRule(bidirectional=True), start)
    ahead = layout.positions > layout.positions[start:, None]
    plain = bool((layout.kind != TokenKind.PADDING).all())
    plain = plain and (rule.window is None or rule.window >= layout.tokens)
    found = plain and rule.bidirectional and bool((both & ahead).any())
    assert schedule.causal_and_ahead == found, layout.describe(0)
    assert not (schedule.causal_and_ahead and schedule.plainly_causal)


@pytest.mark.parametrize(
    ("rule", "causal"),
    [
        (DenseRule(), True),
        (DenseRule(window=36), True),
        (DenseRule(window=35), False),
        (DenseRule(window=5), False),
        (DenseRule(bidirectional=True), False),
    ],
)
def test_windows_and_both_directions_are_not_plainly_causal(rule, causal):
    layout = layouts.regular(2, 10, 4)
    assert layout.tokens == 36
    assert build_schedule(layout, SinkRule(), rule).plainly_causal is causal


def test_both_directions_without_an_image_are_plainly_causal():
    layout, rule = layouts.regular(1, 10, 4), DenseRule(bidirectional=True)
    assert build_schedule(layout, SinkRule(), rule, query_start=16).plainly_causal is True


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_not_plainly_causal(left):
    tokens = layouts.prompt(images=[10], texts=[4, 4], delimited=True)
    layout = layouts.batch([tokens], left=left, extra=1)
    assert build_schedule(layout, SinkRule(), DenseRule()).plainly_causal is False


def test_short_compact_lists_end_with_real_tokens():
    prompts = [
        layouts.prompt(images=[], texts=[9], delimited=False),
        layouts.prompt(images=[6], texts=[0, 0], delimited=False),
    ]
    layout = layouts.batch(prompts, left=True, extra=1)
    compact = build_schedule(layout, SinkRule(leading=1), DenseRule()).compact
    assert compact[0].tolist() == list(range(1, 10))
    assert compact[1, 0] == 4
    assert (layout.kind.gather(1, compact) != TokenKind.PADDING).all()


def test_kernels_find_the_tables_contiguous():
    schedule = build_schedule(layouts.regular(3, 20, 4), SinkRule(), DenseRule(), tile_rows=16)
    fields = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    assert all(field.is_contiguous() for field in fields if isinstance(field, torch.Tensor))


def test_text_rows_fill_their_tiles():
    schedule = build_schedule(layouts.regular(20, 49, 7), SinkRule(), DenseRule(), tile_rows=64)
    assert schedule.rows.shape[0] == 20 + -(-(21 * 7 + 40) // 64)


def test_the_longest_tiles_come_first():
    schedule = build_schedule(layouts.regular(20, 49, 7), SinkRule(), DenseRule(), tile_rows=64)
    lengths = schedule.tiles[Pattern.DENSE, :, 7] - schedule.tiles[Pattern.DENSE, :, 4]
    sparse = schedule.tiles[Pattern.SINK, :, 7] - schedule.tiles[Pattern.SINK, :, 4]
    texts = int((lengths == sparse).sum())
    for part in (lengths[:texts], lengths[texts:]):
        assert part.tolist() == sorted(part.tolist(), reverse=True)


def test_memory_grows_with_tokens_not_with_their_square():
    def size(schedule: Schedule) -> int:
        fields = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
        return sum(field.nbytes for field in fields if isinstance(field, torch.Tensor))

    sizes = []
    for images in (10, 80):
        layout = layouts.regular(images, size=1296, text=40)
        sizes.append(size(build_schedule(layout, SinkRule(), DenseRule())) / layout.tokens)
    assert max(sizes) < 1.1 * min(sizes) < 100


def test_a_chunk_of_a_prompt_without_a_first_image_token_keeps_its_blocks():
    whole = layouts.regular(2, size=40, text=3)
    sinks, start = SinkRule(diagonal_block=16), 30
    tail = whole.tail(20)
    schedule = build_schedule(tail, sinks, DenseRule(), start - 20, tile_rows=16)
    expected = visible(whole, Pattern.SINK, sinks, DenseRule(), start)
    assert torch.equal(schedule.expand(Pattern.SINK)[0, :14], expected[0, :14, 20:])


@pytest.mark.parametrize("tile_rows", [0, 8, 48])
def test_odd_tiles_are_refused(tile_rows):
    with pytest.raises(UsageError, match="power of two"):
        build_schedule(layouts.regular(1, 4, 2), SinkRule(), DenseRule(), tile_rows=tile_rows)


def test_padding_alone_has_tiles_that_see_nothing():
    kind = torch.zeros(2, 5, dtype=torch.int8)
    layout = PromptLayout.of(kind, torch.full((2, 5), -1))
    schedule = build_schedule(layout, SinkRule(), DenseRule())
    assert schedule.rows.shape[0] == 2
    assert not schedule.tiles[..., 4:].any()


def test_no_tokens_are_a_schedule_without_tiles():
    layout = PromptLayout.of(torch.zeros(2, 0), torch.zeros(2, 0))
    schedule = build_schedule(layout, SinkRule(), DenseRule())
    assert schedule.rows.shape == (0, 128)
    assert schedule.compact.shape == (2, 0)

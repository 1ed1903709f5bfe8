"""The four patterns, token by token, on prompts small enough to read."""

import pytest
import torch
from hypothesis import given
from tests.attention import layouts
from tests.attention.test_layout import layout

from photomask.attention.layout import TokenKind
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, is_sink, visible

TEXT, IMAGES = "ttsiiiietsiiie", "--000000-11111"
SINKS = SinkRule(leading=2, diagonal_block=2)


def row(pattern: Pattern, position: int, rule: DenseRule = DenseRule(), **sinks) -> str:  # noqa: B008
    """Returns what one query sees, `#` for each visible key."""
    rule_of_sinks = SINKS.model_copy(update=sinks)
    seen = visible(layout(TEXT, IMAGES), pattern, rule_of_sinks, rule)[0, position]
    return "".join("#" if key else "." for key in seen.tolist())


def test_image_rows_see_what_their_pattern_says():
    assert TEXT == "ttsiiiietsiiie"
    assert row(Pattern.DENSE, 12) == "#############."
    assert row(Pattern.SINK, 12) == "###....###..#."
    assert row(Pattern.SINK, 11) == "###....#####.."
    assert row(Pattern.INTRA_IMAGE, 12) == "##......#####."
    assert row(Pattern.INTRA_IMAGE_SINK, 12) == "###....######."


@pytest.mark.parametrize("pattern", Pattern)
@pytest.mark.parametrize("position", [0, 1, 2, 7, 8, 9, 13])
def test_text_and_delimiters_see_everything_before_them(pattern, position):
    assert row(pattern, position) == "#" * (position + 1) + "." * (13 - position)


def test_first_tokens_of_images_can_be_sinks():
    assert row(Pattern.SINK, 12, per_image=1) == "####...###..#."


def test_bidirectional_images_see_their_own_end():
    both = DenseRule(bidirectional=True)
    assert row(Pattern.DENSE, 4, both) == "#######......."
    assert row(Pattern.INTRA_IMAGE, 4, both) == "#######......."
    assert row(Pattern.SINK, 3, both) == "#####........."
    assert row(Pattern.DENSE, 8, both) == "#########....."


def test_a_window_cuts_off_what_is_far():
    assert row(Pattern.DENSE, 12, DenseRule(window=3)) == "..........###."
    assert row(Pattern.INTRA_IMAGE_SINK, 12, DenseRule(window=5)) == "........#####."
    spared = DenseRule(window=2, window_spares_own_image=True)
    assert row(Pattern.DENSE, 6, spared) == "...####......."
    assert row(Pattern.INTRA_IMAGE, 6, spared) == "...####......."


def test_leading_tokens_of_an_image_are_sinks_and_padding_is_not_counted():
    found = is_sink(layout("..iiit", "--000-"), SinkRule(leading=2))
    assert found.tolist() == [[False, False, True, True, False, False]]


@given(layouts.layouts(), layouts.sink_rules(), layouts.dense_rules())
def test_every_pattern_sees_itself_and_no_more_than_dense(layout, sinks, rule):
    real = layout.kind != TokenKind.PADDING
    dense = visible(layout, Pattern.DENSE, sinks, rule)
    both = visible(layout, Pattern.INTRA_IMAGE_SINK, sinks, rule)
    for pattern in Pattern:
        seen = visible(layout, pattern, sinks, rule)
        assert not (seen & ~dense).any()
        assert torch.equal(seen.diagonal(dim1=1, dim2=2), real)
        if pattern is not Pattern.DENSE:
            assert not (seen & ~both).any()


def test_joining_gives_the_cheapest_pattern_that_sees_both():
    for one in Pattern:
        for other in Pattern:
            joined = one.join(other)
            assert joined == other.join(one) >= max(one, other)
    assert Pattern.SINK.join(Pattern.INTRA_IMAGE) is Pattern.INTRA_IMAGE_SINK
    assert Pattern.SINK.join(Pattern.SINK) is Pattern.SINK


def test_labels_are_the_names_of_documents():
    assert [pattern.label for pattern in Pattern] == [
        "sink",
        "intra-image",
        "intra-image+sink",
        "dense",
    ]

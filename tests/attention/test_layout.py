"""Layouts know where images start and stop, and refuse what no prompt can be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.attention import layouts

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.errors import LayoutError

LETTERS = {
    ".": TokenKind.PADDING,
    "t": TokenKind.TEXT,
    "s": TokenKind.START,
    "i": TokenKind.IMAGE,
    "e": TokenKind.END,
}


def layout(kinds: str, images: str) -> PromptLayout:
    """Makes one prompt from letters and image numbers; `-` belongs to no image."""
    kind = torch.tensor([[LETTERS[letter] for letter in kinds]])
    image = torch.tensor([[-1 if digit == "-" else int(digit) for digit in images]])
    return PromptLayout.of(kind, image)


def test_the_tokens_of_an_image_know_its_ends():
    found = layout(".tsiietii.", "--0000-11-")
    assert found.first.tolist() == [[0, 0, 0, 3, 3, 0, 0, 7, 7, 0]]
    assert found.stop.tolist() == [[0, 0, 0, 5, 5, 0, 0, 9, 9, 0]]
    assert found.ordinal.tolist() == [[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]
    assert found.image_counts == [2]
    outside = torch.iinfo(torch.int32).max
    assert found.offset.tolist() == [[outside] * 3 + [0, 1] + [outside] * 2 + [0, 1, outside]]


def test_a_layout_describes_itself():
    found = layout(".tsiietii.", "--0000-11-")
    assert found.describe(0) == (
        "1 padding, 1 text, 1 start 0, 2 image 0, 1 end 0, 1 text, 2 image 1, 1 padding"
    )


@pytest.mark.parametrize(
    ("kinds", "images", "problem"),
    [
        ("iti", "0-0", "not contiguous"),
        ("tii", "-02", "no token"),
        ("tsi", "---", "disagree"),
        ("tti", "-00", "disagree"),
        ("sti", "0-0", "does not touch"),
        ("ite", "0-0", "does not touch"),
        ("its", "0-0", "does not touch"),
        ("eti", "0-0", "does not touch"),
        ("sii", "011", "no token"),
        ("t.t", "---", "padding stands between"),
    ],
)
def test_what_no_prompt_can_be_is_refused(kinds, images, problem):
    with pytest.raises(LayoutError, match=problem):
        layout(kinds, images)


def test_the_faulty_prompt_of_a_batch_is_named():
    kind = torch.tensor([[1, 3, 1], [3, 1, 3]])
    image = torch.tensor([[-1, 0, -1], [0, -1, 0]])
    with pytest.raises(LayoutError, match="prompt 1"):
        PromptLayout.of(kind, image)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(LayoutError, match="batch, tokens"):
        PromptLayout.of(torch.zeros(1, 3), torch.zeros(1, 4))


def test_no_tokens_are_a_layout():
    found = PromptLayout.of(torch.zeros(2, 0), torch.zeros(2, 0))
    assert found.image_counts == [0, 0]


@given(layouts.layouts(), st.data())
def test_a_tail_counts_positions_from_its_start(whole, data):
    start = data.draw(st.integers(0, whole.tokens - 1))
    tail = whole.tail(start)
    assert tail.tokens == whole.tokens - start
    assert torch.equal(tail.offset, whole.offset[:, start:])
    inside = tail.kind == TokenKind.IMAGE
    assert torch.equal(
        (tail.stop - tail.first)[inside], (whole.stop - whole.first)[:, start:][inside]
    )


@given(layouts.prompts())
def test_random_prompts_are_layouts_with_the_images_that_they_show(tokens):
    found = layouts.batch([tokens], left=True, extra=1)
    shown = {image for kind, image in tokens if kind is TokenKind.IMAGE}
    assert found.image_counts == [len(shown)]

"""Layouts after tokens were removed, layouts from spans, and batches of layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attention import layouts
from tests.attention.tiny_models import FAMILY_NAMES, IMAGE, tiny_inputs, tiny_model

from photomask.attention.families import (
    FAMILIES,
    Delimiters,
    Family,
    codes_of_layout,
    layout_of,
    layout_of_codes,
)
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, Pattern, visible
from photomask.attention.visible_pairs import visible_pairs
from photomask.errors import LayoutError

FIELDS = ("kind", "image", "first", "stop", "ordinal")


def assert_same(found: PromptLayout, expected: PromptLayout) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def left_over(tokens: layouts.Tokens, kept: list[bool]) -> layouts.Tokens:
    """Removes tokens one by one: the oracle of `keep`."""
    remaining = [token for token, keeps in zip(tokens, kept, strict=True) if keeps]
    alive = sorted({image for kind, image in remaining if kind is TokenKind.IMAGE})
    return [
        (kind, alive.index(image)) if image in alive
        else (kind if image < 0 else TokenKind.TEXT, -1)
        for kind, image in remaining
    ]  # fmt: skip


@st.composite
def pruned_batches(draw: st.DrawFn) -> tuple[PromptLayout, torch.Tensor, PromptLayout]:
    """Any batch, tokens of which as many remain in each prompt, and the batch of those tokens."""
    prompts = draw(st.lists(layouts.prompts(10), min_size=1, max_size=3))
    left = draw(st.booleans())
    length = max(map(len, prompts))
    rows, wholes = [], []
    for tokens in prompts:
        padding = [(TokenKind.PADDING, -1)] * (length - len(tokens))
        wholes.append(padding + tokens if left else tokens + padding)
        rows.append(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    fewest = min(map(sum, rows))
    for row in rows:  # each prompt keeps its first tokens of those that were drawn
        places = [place for place, keeps in enumerate(row) if keeps]
        for place in places[fewest:]:
            row[place] = False
    kept = [left_over(whole, row) for whole, row in zip(wholes, rows, strict=True)]
    expected = layouts.batch(kept, left=left)
    return layouts.batch(prompts, left=left), torch.tensor(rows), expected


@settings(max_examples=25)
@given(pruned_batches())
def test_what_is_kept_has_the_layout_of_the_tokens_that_remain(drawn):
    whole, kept, expected = drawn
    assert_same(whole.keep(kept), expected)


@settings(max_examples=25)
@given(pruned_batches(), layouts.sink_rules(), layouts.dense_rules())
def test_the_pairs_of_a_kept_layout_are_those_of_its_mask(drawn, sinks, rule):
    whole, kept, _ = drawn
    found = whole.keep(kept)
    for pattern in Pattern if found.tokens else ():
        mask = visible(found, pattern, sinks, rule)
        assert torch.equal(visible_pairs(found, pattern, sinks, rule), mask.sum((1, 2)))


@settings(max_examples=25)
@given(layouts.prompts(), st.data())
def test_a_mask_without_sinks_is_cut_to_the_tokens_that_remain(tokens, data):
    """Where no image vanishes, what remains sees what it saw, but for what was removed."""
    whole = layouts.batch([tokens], left=False)
    rows = st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))
    kept = torch.tensor([data.draw(rows)])
    kept |= whole.first == whole.positions  # one token of each image remains
    places = kept[0].nonzero()[:, 0]
    sinks = data.draw(layouts.sink_rules()).model_copy(update={"leading": 0, "per_image": 0})
    for pattern in (Pattern.DENSE, Pattern.INTRA_IMAGE):
        before = visible(whole, pattern, sinks, DenseRule())[0][places][:, places]
        assert torch.equal(visible(whole.keep(kept), pattern, sinks, DenseRule())[0], before)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_pruned_token_ids_have_the_kept_layout(family: str):
    config = tiny_model(family).config
    inputs = tiny_inputs(family, [[3, "image", 2, "image", 4]])
    whole = layout_of(config, **inputs)
    kept = torch.ones_like(whole.kind, dtype=torch.bool)
    kept[0, (inputs["input_ids"][0] == IMAGE).nonzero()[1::2, 0]] = False
    sizes = [
        int((kept & (whole.image == n) & (whole.kind == TokenKind.IMAGE)).sum()) for n in (0, 1)
    ]
    found = whole.keep(kept)
    ends = [(int(found.first[found.image == n].max()), size) for n, size in enumerate(sizes)]
    spans = [(first, first + size) for first, size in ends]
    delimited = family != "llava_onevision"
    assert_same(found, PromptLayout.of_spans(found.tokens, spans, delimited=delimited))
    if delimited:  # the others need the processor's word for how long an image is
        assert_same(found, layout_of(config, inputs["input_ids"][kept][None]))


def test_the_delimiters_of_an_image_that_vanishes_become_text():
    whole = PromptLayout.of_spans(12, [(2, 4), (7, 10)], delimited=True)
    kept = torch.ones(1, 12, dtype=torch.bool)
    kept[0, 2:4] = False
    assert whole.keep(kept).describe(0) == "4 text, 1 start 0, 3 image 0, 1 end 0, 1 text"
    kept[0, 7:10] = False
    assert whole.keep(kept).describe(0) == "7 text"
    assert whole.keep(torch.zeros(1, 12, dtype=torch.bool)).tokens == 0


def test_what_cannot_be_kept_is_refused():
    one = PromptLayout.of_spans(6, [(2, 4)], delimited=True)
    two = PromptLayout.stack([one, one])
    kept = torch.ones(2, 6, dtype=torch.bool)
    kept[1, 2] = False
    with pytest.raises(LayoutError, match=r"keep \[6, 5\] tokens.*PromptLayout\.stack"):
        two.keep(kept)
    with pytest.raises(LayoutError, match=r"bool \[2, 6\].*got torch\.bool \[1, 6\]"):
        two.keep(kept[:1])
    with pytest.raises(LayoutError, match=r"got torch\.int64"):
        two.keep(kept.long())
    for cut in (3, 5):  # inside an image, and behind it
        with pytest.raises(LayoutError, match="keep needs the layout of whole prompts"):
            one.tail(cut).keep(torch.ones(1, 6 - cut, dtype=torch.bool))
    with pytest.raises(LayoutError, match="stack needs the layout of whole prompts"):
        PromptLayout.stack([one.tail(1)])


@settings(max_examples=25)
@given(st.lists(layouts.prompts(), min_size=1, max_size=3), st.booleans())
def test_a_stack_is_the_batch_of_its_prompts(prompts, left):
    single = [layouts.batch([tokens], left=left) for tokens in prompts]
    assert_same(PromptLayout.stack(single, left=left), layouts.batch(prompts, left=left))


def test_a_stack_of_nothing_is_refused():
    with pytest.raises(LayoutError, match="at least one layout"):
        PromptLayout.stack([])


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 2)], "image 0 was given the tokens from 0 to 2, but it must lie between 1 and 9"),
        ([(2, 2)], "at least one token"),
        ([(4, 10)], "between 1 and 9"),
        ([(2, 4), (5, 6)], "image 1 .* between 6 and 9"),
        ([(6, 8), (2, 4)], "image 1"),
    ],
)
def test_spans_that_no_prompt_has_are_refused(spans: list[tuple[int, int]], message: str):
    with pytest.raises(LayoutError, match=message):
        PromptLayout.of_spans(10, spans, delimited=True)


def test_spans_without_delimiters_may_touch():
    found = PromptLayout.of_spans(6, [(0, 2), (2, 5)], delimited=False)
    assert found.describe(0) == "2 image 0, 3 image 1, 1 text"


ONE_OF_EACH = [next(each for each in FAMILIES if each.delimiters is way) for way in Delimiters]


@pytest.mark.parametrize("family", ONE_OF_EACH, ids=lambda family: family.name)
@settings(max_examples=25)
@given(st.lists(layouts.prompts(), min_size=1, max_size=3), st.booleans())
def test_the_codes_of_a_layout_give_it_back_in_every_family(family: Family, prompts, left: bool):
    layout = layouts.batch(prompts, left=left)
    real = layout.kind != TokenKind.PADDING
    assert_same(layout_of_codes(family, codes_of_layout(layout), real, complete=False), layout)

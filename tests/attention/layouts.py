"""Random prompt layouts, and the rules that go with them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule, SinkRule

Tokens = list[tuple[TokenKind, int]]


def prompt(*, images: list[int], texts: list[int], delimited: bool, cut: int = 0) -> Tokens:
    """Returns the tokens of a prompt: text, image, text, …; the last `cut` tokens are left out."""
    tokens: Tokens = [(TokenKind.TEXT, -1)] * texts[0]
    for number, (size, text) in enumerate(zip(images, texts[1:], strict=True)):
        image: Tokens = [(TokenKind.IMAGE, number)] * size
        if delimited:
            image = [(TokenKind.START, number), *image, (TokenKind.END, number)]
        tokens += image + [(TokenKind.TEXT, -1)] * text
    kept = tokens[: len(tokens) - cut]
    while kept and kept[-1][0] is TokenKind.START:  # a delimiter without its image is no layout
        kept.pop()
    return kept or [(TokenKind.TEXT, -1)]


def batch(prompts: list[Tokens], *, left: bool, extra: int = 0) -> PromptLayout:
    """Pads prompts to one length, and by `extra` tokens more."""
    length = max(len(tokens) for tokens in prompts) + extra
    rows = []
    for tokens in prompts:
        padding = [(TokenKind.PADDING, -1)] * (length - len(tokens))
        rows.append(padding + tokens if left else tokens + padding)
    kinds = torch.tensor([[int(kind) for kind, _ in row] for row in rows], dtype=torch.int8)
    images = torch.tensor([[image for _, image in row] for row in rows], dtype=torch.int32)
    return PromptLayout.of(kinds, images)


def regular(
    images: int, size: int, text: int, *, delimited: bool = True, head: int | None = None
) -> PromptLayout:
    """Returns one prompt of equal images with `text` tokens between, before and behind them."""
    first = text if head is None else head
    tokens = prompt(images=[size] * images, texts=[first] + [text] * images, delimited=delimited)
    return batch([tokens], left=False)


@st.composite
def prompts(draw: st.DrawFn, longest: int = 24) -> Tokens:
    """Any prompt: also without images, without text, with adjacent images, cut off in an image."""
    images = draw(st.lists(st.integers(1, longest), max_size=4))
    gaps = st.one_of(st.just(0), st.integers(0, 6))
    texts = draw(st.lists(gaps, min_size=len(images) + 1, max_size=len(images) + 1))
    cut = draw(st.one_of(st.just(0), st.integers(0, 12)))
    return prompt(images=images, texts=texts, delimited=draw(st.booleans()), cut=cut)


@st.composite
def layouts(draw: st.DrawFn, batches: int = 3, longest: int = 24) -> PromptLayout:
    """Any layout, padded on either side; sometimes one that begins inside another."""
    several = draw(st.lists(prompts(longest), min_size=1, max_size=batches))
    layout = batch(several, left=draw(st.booleans()), extra=draw(st.integers(0, 2)))
    return layout.tail(draw(st.one_of(st.just(0), st.integers(0, layout.tokens - 1))))


def sink_rules() -> st.SearchStrategy[SinkRule]:
    """Any rule about sinks that matters in short prompts."""
    return st.builds(
        SinkRule,
        leading=st.integers(0, 5),
        per_image=st.integers(0, 3),
        diagonal_block=st.integers(1, 9),
    )


def dense_rules() -> st.SearchStrategy[DenseRule]:
    """Any rule about dense heads that matters in short prompts."""
    return st.builds(
        DenseRule,
        bidirectional=st.booleans(),
        window=st.one_of(st.none(), st.integers(1, 30)),
        window_spares_own_image=st.booleans(),
    )

"""Prompts to which the sparse model says something else than the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photomask.attention.verification.documents import ChangedAnswer
from photomask.attention.verification.evaluation import Answers
from photomask.prompts import Prompt

SHOWN = 50
"""How many are written down, as many as possible of each kind of change."""

LONGEST_TEXT = 600
"""Characters of a prompt that are written down."""


def changed_answers(
    prompts: Sequence[Prompt], dense: Answers, sparse: Answers, processor: Any
) -> tuple[int, tuple[ChangedAnswer, ...]]:
    """Finds the prompts whose answer changed.

    An answer is what greedy decoding says up to its first token that is not the expected one, or
    its first token where nothing is expected.

    Args:
        prompts: that were answered.
        dense: what the dense model says to them.
        sparse: what the sparse model says to them.
        processor: of the model; turns token ids into text.

    Returns:
        How many there are, and some of them: first those that became wrong.
    """
    pairs = zip(dense.said, sparse.said, strict=True)
    places = [place for place, (before, after) in enumerate(pairs) if before != after]

    def kind(place: int) -> tuple[bool, bool]:
        return not dense.right[place], bool(sparse.right[place])

    shown = sorted(sorted(places, key=kind)[:SHOWN])
    return len(places), tuple(
        ChangedAnswer(
            prompt=place,
            task=prompts[place].task,
            text=_text(prompts[place]),
            pictures=sum(not isinstance(part, str) for part in prompts[place].content),
            expected=prompts[place].answer,
            dense=processor.decode(list(dense.said[place])),
            sparse=processor.decode(list(sparse.said[place])),
            dense_right=dense.right[place],
            sparse_right=sparse.right[place],
        )
        for place in shown
    )


def _text(prompt: Prompt) -> str:
    """Returns the words of a prompt, with a mark where a picture stands."""
    number = 0
    parts = []
    for part in prompt.content:
        if isinstance(part, str):
            parts.append(part)
            continue
        number += 1
        name = f": {part.name}" if isinstance(part, Path) else ""
        parts.append(f"[picture {number}{name}]")
    text = " ".join(" ".join(parts).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"

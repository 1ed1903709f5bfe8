"""Finds out what a dense head sees, by calls of the model's own mask function only.

Versions of transformers differ in how they combine windows and images, and packed prompts, prefixes
and overlays add masks of their own. For every query, the mask function is evaluated at a handful of
keys. A rule is used only if it agrees with the function at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.patterns import DenseRule
from photomask.errors import PlanError

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Any]


def find_rule(
    mask_function: MaskFunction,
    layout: PromptLayout,
    query_start: int,
    key_start: int,
    windows: Sequence[int],
    bidirectional: bool,
) -> DenseRule:
    """Returns the rule that agrees with a mask function at every key that is tested.

    Args:
        mask_function: an elementwise function of (prompt, head, query, key) that returns whether
            the query sees the key. It does not consider padding.
        layout: the layout of all tokens.
        query_start: the position of the first query.
        key_start: the position of the first key that the layer still has.
        windows: the lengths that a window may have.
        bidirectional: whether the tokens of an image may see each other in both directions.

    Raises:
        PlanError: no rule agrees.
    """
    rows = layout.positions[None, query_start:, None].long()
    keys = _asked_keys(layout, query_start, key_start, windows)
    found = _ask(mask_function, rows, keys)
    real = layout.kind != TokenKind.PADDING
    counts = real[:, query_start:, None] & _at(real, keys)
    candidates = _candidates(windows, bidirectional)
    differs = [(found != _allowed(layout, rule, rows, keys)) & counts for rule in candidates]
    wrong = torch.stack([difference.sum() for difference in differs]).tolist()
    for rule, number in zip(candidates, wrong, strict=True):
        if number == 0:
            return rule
    _refuse(differs[wrong.index(min(wrong))], found, query_start, keys)
    raise AssertionError("unreachable")


def _candidates(windows: Sequence[int], bidirectional: bool) -> list[DenseRule]:
    """Returns the rules that models use, the simplest first."""
    directions = (False, True) if bidirectional else (False,)
    rules = [DenseRule(bidirectional=both) for both in directions]
    for window in windows:
        for spares in directions:
            rules += [DenseRule(both, window, spares) for both in directions]
    return rules


def _asked_keys(
    layout: PromptLayout, query_start: int, key_start: int, windows: Sequence[int]
) -> Tensor:
    """Returns the keys at which different masks are most likely to differ: int64 [B, Q, P]."""
    positions = layout.positions.long()[query_start:].expand(layout.batch, -1)
    first, stop = layout.first.long()[:, query_start:], layout.stop.long()[:, query_start:]
    real = layout.kind != TokenKind.PADDING
    leading = real.to(torch.int8).argmax(1, keepdim=True).expand_as(positions)
    span = layout.tokens - key_start
    asked = [positions + step for step in (-1, 0, 1, 2)]
    asked += [first - 1, first, (first + stop) // 2, stop - 1, stop, leading]
    asked += [positions * factor % span + key_start for factor in (7919, 104729)]
    for window in windows:
        asked += [positions - window, positions - window + 1, positions + window - 1]
    return torch.stack(asked, 2).clamp(key_start, layout.tokens - 1)


def _ask(mask_function: MaskFunction, rows: Tensor, keys: Tensor) -> Tensor:
    """Evaluates the mask function at pairs of query and key: bool [B, Q, P].

    Raises:
        PlanError: the function cannot be evaluated at single pairs.
    """
    prompts = torch.arange(keys.shape[0], device=keys.device)[:, None, None].expand_as(keys)
    try:
        answer = mask_function(prompts, torch.zeros_like(keys), rows.expand_as(keys), keys)
        return torch.as_tensor(answer, device=keys.device).to(torch.bool).expand_as(keys)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise PlanError(
            "the model's mask function cannot be asked about single pairs of query and key, so "
            "nothing proves that the plan sees what the model sees; run the original model, as "
            f"unconvert returns it: {error}"
        ) from error


def _allowed(layout: PromptLayout, rule: DenseRule, rows: Tensor, keys: Tensor) -> Tensor:
    """Returns which pairs of query and key a rule allows: bool [B, Q, P]."""
    image = torch.where(layout.kind == TokenKind.IMAGE, layout.image, -1)
    of_rows = image[:, layout.tokens - rows.shape[1] :, None]
    own = (of_rows >= 0) & (_at(image, keys) == of_rows)
    allowed = keys <= rows
    if rule.bidirectional:
        allowed = allowed | own
    if rule.window is not None:
        near = rows - keys < rule.window
        allowed = allowed & ((near | own) if rule.window_spares_own_image else near)
    return allowed


def _at(values: Tensor, keys: Tensor) -> Tensor:
    """Returns the values, [B, L], at some positions, [B, Q, P]."""
    return values.gather(1, keys.flatten(1)).view_as(keys)


def _refuse(differs: Tensor, found: Tensor, query_start: int, keys: Tensor) -> None:
    """Raises PlanError and names the first pair at which even the best rule is wrong."""
    prompt, row, place = differs.nonzero()[0].tolist()
    verb = "sees" if bool(found[prompt, row, place]) else "does not see"
    raise PlanError(
        f"prompt {prompt}: by the model's mask, token {query_start + row} {verb} token "
        f"{int(keys[prompt, row, place])}, which is neither causal attention nor what this family "
        "does with images and windows. Packed prompts, prefixes and other extra masks are not "
        "supported; and a bidirectional model must be given the token types of all tokens so far"
    )

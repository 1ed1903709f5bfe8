"""Finds out what a dense head sees by asking the model's own mask function, and nothing else.

Versions of transformers differ in how windows and images combine; packed prompts, prefixes and
overlays add masks of their own. The mask function is asked at a handful of keys for every query,
and a rule that does not answer like it at every one of them is not used.
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
    """Returns the rule that agrees with a mask function at every key it is asked for.

    Args:
        mask_function: (prompt, head, query, key) → whether the query sees the key, elementwise;
            padding not considered.
        layout: of all tokens.
        query_start: position of the first query.
        key_start: position of the first key that the layer still has.
        windows: lengths that a window may have.
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
    """Lists the rules that models have, simplest first."""
    directions = (False, True) if bidirectional else (False,)
    rules = [DenseRule(bidirectional=both) for both in directions]
    for window in windows:
        for spares in directions:
            rules += [DenseRule(both, window, spares) for both in directions]
    return rules


def _asked_keys(
    layout: PromptLayout, query_start: int, key_start: int, windows: Sequence[int]
) -> Tensor:
    """Chooses the keys at which two different masks most likely differ: int64 [B, Q, P]."""
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
    """Evaluates the mask function at pairs: bool [B, Q, P]."""
    prompts = torch.arange(keys.shape[0], device=keys.device)[:, None, None].expand_as(keys)
    try:
        answer = mask_function(prompts, torch.zeros_like(keys), rows.expand_as(keys), keys)
        return torch.as_tensor(answer, device=keys.device).to(torch.bool).expand_as(keys)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise PlanError(
            "the model's mask function cannot be asked about single pairs of query and key, so "
            f"nothing proves that the plan sees what the model means: {error}"
        ) from error


def _allowed(layout: PromptLayout, rule: DenseRule, rows: Tensor, keys: Tensor) -> Tensor:
    """What a rule says about pairs: bool [B, Q, P]."""
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
    """Looks up [B, L] at positions [B, Q, P]."""
    return values.gather(1, keys.flatten(1)).view_as(keys)


def _refuse(differs: Tensor, found: Tensor, query_start: int, keys: Tensor) -> None:
    """Raises and names the first pair about which even the best rule is wrong."""
    prompt, row, place = differs.nonzero()[0].tolist()
    verb = "sees" if bool(found[prompt, row, place]) else "does not see"
    raise PlanError(
        f"prompt {prompt}: by the model's mask, token {query_start + row} {verb} token "
        f"{int(keys[prompt, row, place])}, which is neither causal attention nor what this family "
        "does with images and windows. Packed prompts, prefixes and other extra masks are not "
        "supported; and a bidirectional model must be given the token types of all tokens so far"
    )

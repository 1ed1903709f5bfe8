"""The rule of a layer is what its mask function answers, or nothing."""

from typing import Any

import pytest
import torch
from tests.attention.layouts import batch, prompt
from torch import Tensor

from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, visible
from photomask.attention.plugin.rules import find_rule
from photomask.errors import PlanError

WINDOW = 6
LAYOUT = batch(
    [
        prompt(images=[9, 4, 8], texts=[3, 2, 0, 5], delimited=True),
        prompt(images=[5, 5], texts=[2, 9, 3], delimited=False),
    ],
    left=True,
)
RULES = [
    DenseRule(),
    DenseRule(bidirectional=True),
    DenseRule(window=WINDOW),
    DenseRule(bidirectional=True, window=WINDOW),
    DenseRule(window=WINDOW, window_spares_own_image=True),
    DenseRule(bidirectional=True, window=WINDOW, window_spares_own_image=True),
]


def mask_function(layout: PromptLayout, rule: DenseRule) -> Any:
    """Answers for pairs what the definition says."""
    mask = visible(layout, Pattern.DENSE, SinkRule(), rule)
    return lambda prompts, heads, queries, keys: mask[prompts, queries, keys]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("query_start", "key_start"), [(0, 0), (12, 0), (20, 14)])
def test_the_rule_of_a_mask_is_found(rule: DenseRule, query_start: int, key_start: int):
    ask = mask_function(LAYOUT, rule)
    assert find_rule(ask, LAYOUT, query_start, key_start, [WINDOW], True) == rule


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_a_rule_that_the_family_does_not_have_is_refused(rule: DenseRule):
    windows = [] if rule.window else [WINDOW]
    with pytest.raises(PlanError, match="by the model's mask, token"):
        find_rule(mask_function(LAYOUT, rule), LAYOUT, 0, 0, windows, False)


@pytest.mark.parametrize(
    "overlay",
    [
        lambda queries, keys: keys < 14,
        lambda queries, keys: (queries < 12) == (keys < 12),
        lambda queries, keys: keys != queries,
        lambda queries, keys: queries - keys < WINDOW - 1,
        lambda queries, keys: queries - keys < WINDOW + 1,
    ],
    ids=["cut off", "packed", "not itself", "shorter window", "longer window"],
)
def test_an_overlay_is_noticed(overlay: Any):
    causal = mask_function(LAYOUT, DenseRule())

    def ask(prompts: Tensor, heads: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        return causal(prompts, heads, queries, keys) & overlay(queries, keys)

    with pytest.raises(PlanError, match="Packed prompts"):
        find_rule(ask, LAYOUT, 0, 0, [WINDOW], True)


def test_a_function_that_takes_no_pairs_is_refused():
    def ask(prompts: Tensor, heads: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        return queries if bool(queries > keys) else keys

    with pytest.raises(PlanError, match="cannot be asked"):
        find_rule(ask, LAYOUT, 0, 0, [], True)


def test_a_constant_answer_counts_for_every_pair():
    layout = batch([prompt(images=[], texts=[1], delimited=True)], left=True)
    assert find_rule(lambda *pair: torch.tensor(True), layout, 0, 0, [], False) == DenseRule()

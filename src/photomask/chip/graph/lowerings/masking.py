"""Lowers the masks of softmax, which are made of integer inputs and constants.

Models write a mask in three ways: true for visible elements, true for hidden elements, or numbers
that are added to the scores (0, or a number so low that nothing remains). All of them become a mask
of visible elements.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from photomask.chip.graph.builder import (
    Call,
    CannotLower,
    EdgeName,
    Masked,
    Value,
    Visible,
)
from photomask.chip.graph.lowerings.registry import lowers
from photomask.chip.graph.operations import Add, Constant

HIDDEN = -64.0
"""An addend at or below it hides an element from a softmax.

The largest exponential times `exp(-64)` is below the float32 resolution of a sum of up to 2**68
elements.
"""


def as_visible(call: Call, value: object) -> Visible | None:
    """Returns an integer input as a mask, or None for other values."""
    if isinstance(value, Visible):
        return value
    if isinstance(value, EdgeName) and value in call.builder.rows:
        return Visible(value, torch.ones((), dtype=torch.bool))
    return None


@lowers("logical_not", "bitwise_not")
def _not(call: Call) -> Value:
    """Lowers the negation of a mask, which swaps visible and hidden elements."""
    mask = as_visible(call, call["self"])
    if mask is None or mask.form not in ("seen", "hidden") or not bool(mask.constant.all()):
        raise CannotLower("it is a logical operation on activations; only masks may be negated")
    return replace(mask, form="seen" if mask.form == "hidden" else "hidden")


@lowers("eq.Scalar", "ne.Scalar", "gt.Scalar")
def _compared(call: Call) -> Value:
    """Lowers a comparison of an integer mask with 0.

    `mask == 0` is true for hidden elements, `mask != 0` and `mask > 0` for visible ones.
    """
    mask, other = as_visible(call, call["self"]), call["other"]
    if mask is None or mask.form != "seen":
        raise CannotLower("it compares activations; only integer inputs may be compared, with 0")
    if other != 0:
        raise CannotLower(
            f"it compares an integer input with {other}, but an integer input can hide elements "
            "only where it is 0; pass the mask as an input of its own"
        )
    return replace(mask, form="hidden") if "eq" in str(call.traced.target) else mask


@lowers("masked_fill")
def _masked_fill(call: Call) -> Value:
    """Lowers a fill with a low number where a mask is true, in scores or in zeros added to them."""
    given: Any = call["value"]
    mask, value = call["mask"], float(given)
    if value > HIDDEN:
        raise CannotLower(f"it fills in {value}, which hides nothing from a softmax")
    hidden = as_visible(call, mask)
    known = call["self"]
    if isinstance(known, Tensor):
        if hidden is None or bool(known.any()):
            raise CannotLower(
                "it fills a constant where the input decides; only zeros that mask scores may be "
                "filled so"
            )
        return replace(_hiding(hidden), form="added")
    if isinstance(mask, Tensor):
        return add_masks(call, known, seen=~mask)
    if hidden is None:
        raise CannotLower("its mask depends on the input, but is no integer input")
    return add_masks(call, known, visible=_hiding(hidden))


def _hiding(mask: Visible) -> Visible:
    if mask.form == "hidden":
        return mask
    raise CannotLower(
        f"it hides elements where the integer input {mask.edge!r} is not 0, but an integer input "
        "can hide elements only where it is 0; pass a mask of visible elements"
    )


@lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(call: Call) -> Value:
    """Lowers a choice between scores and a low number, which is a mask."""
    condition = call["condition"]
    first = call["self"]
    second = call["other"]
    visible = as_visible(call, condition)
    for scores, low, seen_first in ((first, second, True), (second, first, False)):
        if not _is_low(low):
            continue
        if isinstance(condition, Tensor):
            return add_masks(call, scores, seen=condition if seen_first else ~condition)
        if visible is None or visible.form != ("seen" if seen_first else "hidden"):
            break
        if isinstance(scores, (EdgeName, Masked)):
            return add_masks(call, scores, visible=visible)
        if not bool(torch.as_tensor(scores).any()):
            return replace(visible, form="added")
    raise CannotLower(
        "the input decides between two values; that is supported only for scores and a low number, "
        "as a mask"
    )


def _is_low(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 0 and bool((value <= HIDDEN).all())
    return isinstance(value, (int, float)) and value <= HIDDEN


def add_masks(
    call: Call, scores: object, *, seen: Tensor | None = None, visible: Visible | None = None
) -> Masked:
    """Returns scores with one more mask.

    Args:
        call: the traced call.
        scores: scores, masked or not.
        seen: a constant mask that is true for visible elements, or None.
        visible: a mask with an integer input, or None.

    Raises:
        CannotLower: the scores cannot have this mask as well.
    """
    found = scores if isinstance(scores, Masked) else Masked(call.builder.as_edge(scores, call))
    if found.view is not None:
        raise CannotLower("it masks scores that were masked and reshaped before")
    if visible is not None:
        if found.edge is not None:
            raise CannotLower("two integer inputs hide elements of the same scores")
        found = replace(found, edge=visible.edge)
        seen = None if bool(visible.constant.all()) else visible.constant
    if seen is not None:
        shape = call.builder.shapes[found.scores]
        seen = seen.reshape((1,) * (len(shape) - seen.ndim) + tuple(seen.shape))
        seen = of_one_sample(call, seen, shape)
        found = replace(found, seen=seen if found.seen is None else found.seen & seen)
    return found


def of_one_sample(call: Call, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns a mask for one sample, [...] without the batch axis.

    Raises:
        CannotLower: the mask differs from sample to sample, or between the rows of a sample.
    """
    if len(mask) not in (1, call.builder.batch * shape[0]) or not bool((mask == mask[:1]).all()):
        raise CannotLower("its mask differs from sample to sample")
    return mask[0]


def computed_mask(name: str, first: object, second: object) -> Visible | None:
    """Returns `1 - mask` or `(1 - mask) * low` as a mask; None for other differences and products.

    Args:
        name: `sub` or `mul`.
        first: the left operand.
        second: the right operand.
    """
    if name == "sub" and isinstance(second, Visible) and _is_number(first, 1.0):
        return replace(second, form="one_hidden") if second.form == "one_seen" else None
    for mask, low in ((first, second), (second, first)):
        if name == "mul" and isinstance(mask, Visible) and mask.form == "one_hidden":
            return replace(mask, form="added") if _is_low(low) else None
    return None


def _is_number(value: object, wanted: float) -> bool:
    one = isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
    return one and float(value) == wanted  # type: ignore[arg-type]


def added_to_scores(call: Call, first: object, second: object) -> Masked | None:
    """Returns a sum as masked scores if one of its terms hides elements; None for other sums."""
    for scores, added in ((first, second), (second, first)):
        if isinstance(added, Visible) and added.form == "added":
            return add_masks(call, scores, visible=added)
        is_scores = isinstance(scores, (EdgeName, Masked))
        if is_scores and isinstance(added, Tensor) and bool((added <= HIDDEN).any()):
            return _split(call, scores, added)
    if isinstance(first, Masked) or isinstance(second, Masked):
        raise CannotLower("it adds to scores after they were masked; add before masking")
    return None


def _split(call: Call, scores: object, added: Tensor) -> Masked:
    """Returns masked scores for scores plus a constant that hides some of them.

    The rest of the constant is added to the scores.
    """
    hides = added <= HIDDEN
    left = added.masked_fill(hides, 0.0)
    if bool(left.any()):
        edge = scores.scores if isinstance(scores, Masked) else call.builder.as_edge(scores, call)
        rank = len(call.builder.shapes[edge])
        value = left.reshape((1,) * (rank - left.ndim) + tuple(left.shape))
        value = of_one_sample(call, value, call.builder.shapes[edge])[None]
        total = call.emit(Add((1, 1)), [edge, call.emit(Constant(), [], {"value": value})])
        scores = replace(scores, scores=total) if isinstance(scores, Masked) else total
    return add_masks(call, scores, seen=~hides)

"""Tests the contract of pruners: the laws that make a mask mean what the user asked for.

The laws are tested on weights of a linear layer and of convolutions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from photomask.chip.pruning.base import Moment, PrunableWeight, Pruner
from photomask.chip.sparsity import Blocks, NofM
from photomask.errors import PruningError

MOMENTS = (Moment(0.0, 0.0), Moment(0.3, 0.5), Moment(1.0, 1.0))
"""Moments of a schedule; their sparsity is a share of the pruner's."""


class _BrokenError(Exception):
    """Reports a counterexample to a law."""


@dataclass(frozen=True)
class _Case:
    pruner: Pruner
    weights: tuple[PrunableWeight, ...]


def check_pruner(pruner: Pruner) -> None:
    """Tests on examples that a pruner keeps the contract, and says which law it breaks.

    Args:
        pruner: the pruner, which is not changed.

    Raises:
        PruningError: the pruner breaks a law, or raises an error of its own. The message names the
            law and the first counterexample.
    """
    if not isinstance(pruner, Pruner):
        raise PruningError(f"expected a Pruner object, found {pruner!r}")
    weights = _examples(pruner)
    for name, sentence, test in _LAWS:
        broken = f"{type(pruner).__name__} breaks the law of {name} ({sentence})"
        case = _Case(copy.deepcopy(pruner), tuple(_copied(weight) for weight in weights))
        try:
            test(case)
        except _BrokenError as counterexample:
            raise PruningError(f"{broken}: {counterexample}") from None
        except Exception as error:
            raise PruningError(f"{broken}: it raised {type(error).__name__}: {error}") from error


def check_masks(
    pruner: Pruner, weights: Sequence[PrunableWeight], masks: Sequence[Tensor]
) -> list[Tensor]:
    """Returns the masks that a pruner made for the weights of a model, if they are masks of them.

    Raises:
        PruningError: the shape or the dtype is wrong, or the pattern is broken; the message names
            the layer.
    """
    try:
        _demand_masks(pruner, weights, masks)
    except _BrokenError as problem:
        raise PruningError(f"{type(pruner).__name__}: {problem}") from None
    return list(masks)


def _demand_masks(
    pruner: Pruner, weights: Sequence[PrunableWeight], masks: Sequence[Tensor]
) -> None:
    if len(masks) != len(weights):
        raise _BrokenError(f"there are {len(masks)} masks for {len(weights)} weights")
    for weight, mask in zip(weights, masks, strict=True):
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise _BrokenError(f"the mask of {weight.layer!r} is {kind}, expected torch.bool")
        if mask.shape != weight.weight.shape:
            raise _BrokenError(
                f"the mask of {weight.layer!r} has shape {list(mask.shape)}, but the weight has "
                f"{list(weight.weight.shape)}"
            )
        if isinstance(pruner.pattern, NofM):
            _demand_groups(weight, mask, pruner.pattern)
        elif isinstance(pruner.pattern, Blocks):
            _demand_blocks(weight, mask, pruner.pattern)


def _demand_groups(weight: PrunableWeight, mask: Tensor, pattern: NofM) -> None:
    outputs, inputs, *kernel = mask.shape
    counts = mask.reshape(outputs, inputs // pattern.group, pattern.group, *kernel).sum(dim=2)
    if int(counts.max()) > pattern.kept:
        at = (counts > pattern.kept).nonzero()[0].tolist()
        raise _BrokenError(
            f"in {weight.layer!r}, the group {at[1]} of output {at[0]} keeps {int(counts.max())} "
            f"weights, but {pattern} keeps {pattern.kept}"
        )


def _demand_blocks(weight: PrunableWeight, mask: Tensor, pattern: Blocks) -> None:
    for top in range(0, mask.shape[0], pattern.outputs):
        rows = mask[top : top + pattern.outputs]
        for left in range(0, mask.shape[1], pattern.inputs):
            block = rows[:, left : left + pattern.inputs]
            block = block.reshape(*block.shape[:2], -1)
            kept = block.sum(dim=(0, 1))
            if bool(((kept != 0) & (kept != block.shape[0] * block.shape[1])).any()):
                raise _BrokenError(
                    f"in {weight.layer!r}, the block at output {top} and input {left} is pruned "
                    "in part"
                )


def _test_scores(case: _Case) -> None:
    for weight in case.weights:
        if not bool(case.pruner.checked_score(weight).isfinite().all()):
            raise _BrokenError(f"a score of {weight.layer!r} is NaN or infinite")


def _test_masks(case: _Case) -> None:
    _demand_masks(case.pruner, case.weights, case.pruner.masks(case.weights, case.pruner.sparsity))


def _test_sparsity(case: _Case) -> None:
    pruner, found = case.pruner, case.pruner.masks(case.weights, case.pruner.sparsity)
    what = "weights"
    if isinstance(pruner.pattern, Blocks):
        found = [mask[:: pruner.pattern.outputs, :: pruner.pattern.inputs] for mask in found]
        what = "blocks"
    size = sum(mask.numel() for mask in found)
    pruned = size - sum(int(mask.sum()) for mask in found)
    # The count of each output, layer or model is rounded.
    units = {"global": 1, "layer": len(found), "output": sum(len(mask) for mask in found)}
    if abs(pruned - pruner.sparsity * size) > units[pruner.scope]:
        raise _BrokenError(
            f"{pruned} of {size} {what} are pruned; a sparsity of {pruner.sparsity:g} prunes "
            f"{pruner.sparsity * size:g}"
        )


def _test_purity(case: _Case) -> None:
    before = [_copied(weight) for weight in case.weights]
    case.pruner.masks(case.weights, case.pruner.sparsity)
    case.pruner.update(case.weights, Moment(0.5, case.pruner.sparsity))
    for weight, old in zip(case.weights, before, strict=True):
        case.pruner.gradient(weight)
        for name in ("weight", "mask", "gradient", "input_norms"):
            now, then = getattr(weight, name), getattr(old, name)
            if now is not None and not torch.equal(now, then):
                raise _BrokenError(f"it wrote into the {name} of {weight.layer!r}")


def _test_repetition(case: _Case) -> None:
    first = case.pruner.masks(case.weights, case.pruner.sparsity)
    again = case.pruner.masks(case.weights, case.pruner.sparsity)
    for weight, one, two in zip(case.weights, first, again, strict=True):
        if not torch.equal(one, two):
            raise _BrokenError(f"two calls give two masks for {weight.layer!r}")


def _test_schedule(case: _Case) -> None:
    pruner = case.pruner
    generator = torch.Generator().manual_seed(0)
    masks = pruner.first_masks(case.weights, generator)
    weights = case.weights
    for moment in MOMENTS:
        if moment.progress or pruner.follows_weights:
            _demand_masks(pruner, weights, masks)
        weights = tuple(replace(w, mask=m) for w, m in zip(weights, masks, strict=True))
        masks = pruner.update(weights, Moment(moment.progress, moment.sparsity * pruner.sparsity))
    _demand_masks(pruner, weights, masks)


def _test_gradient(case: _Case) -> None:
    for weight in case.weights:
        slope = case.pruner.gradient(weight)
        if slope.shape != weight.weight.shape or not slope.is_floating_point():
            raise _BrokenError(
                f"the gradient of {weight.layer!r} is {slope.dtype} {list(slope.shape)}, but the "
                f"weight is {list(weight.weight.shape)}"
            )
        if not bool(slope.isfinite().all()):
            raise _BrokenError(f"the gradient of {weight.layer!r} is not finite")
        if not case.pruner.keeps_hidden and bool((slope[~weight.mask] != 0).any()):
            raise _BrokenError(
                f"pruned weights of {weight.layer!r} get a gradient, but keeps_hidden is False"
            )


_LAWS = (
    ("scores", "every weight gets a finite score", _test_scores),
    ("masks", "a bool mask in the shape of each weight, which keeps the pattern", _test_masks),
    ("sparsity", "the masks prune the share that was asked for", _test_sparsity),
    ("purity", "the weights and gradients that it gets stay as they are", _test_purity),
    ("repetition", "the same weights give the same masks", _test_repetition),
    ("schedule", "masks during a training are masks too", _test_schedule),
    ("gradients", "a finite gradient in the shape of the weight", _test_gradient),
)


def _examples(pruner: Pruner) -> list[PrunableWeight]:
    """Returns weights that fit the pruner's pattern, with everything that a pruner may need."""
    inputs = 24
    if isinstance(pruner.pattern, NofM):
        inputs = 2 * pruner.pattern.group
    generator = torch.Generator().manual_seed(0)
    found = []
    for layer, shape in (("linear", ()), ("convolution", (3, 3)), ("sequence", (5,))):
        size = (20, inputs, *shape)
        weight = torch.randn(size, generator=generator)
        mask = torch.rand(size, generator=generator) < 0.7
        found.append(
            PrunableWeight(
                layer=layer,
                weight=weight if pruner.keeps_hidden else weight * mask,
                mask=mask,
                gradient=torch.randn(size, generator=generator),
                input_norms=torch.rand((1, inputs, *(1 for _ in shape)), generator=generator) + 0.1,
            )
        )
    return found


def _copied(weight: PrunableWeight) -> PrunableWeight:
    return replace(
        weight,
        weight=weight.weight.clone(),
        mask=weight.mask.clone(),
        gradient=None if weight.gradient is None else weight.gradient.clone(),
        input_norms=None if weight.input_norms is None else weight.input_norms.clone(),
    )

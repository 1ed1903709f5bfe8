"""Defines the base class of pruners: a pruner says which weights are worth keeping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from photomask.chip.pruning.selection import (
    block_scores,
    keep_best,
    keep_best_of_all,
    keep_best_of_rows,
    keep_of_groups,
    spread_blocks,
)
from photomask.chip.sparsity import Blocks, NofM
from photomask.errors import PruningError

Need = Literal["gradients", "inputs"]
"""What a pruner asks for beside the weights."""


@dataclass(frozen=True, eq=False)
class PrunableWeight:
    """A weight as a pruner sees it. A pruner must not write into its tensors.

    Attributes:
        layer: the name of the layer; the first of them where several share the weight.
        weight: the values in float, [outputs, inputs, *kernel], without the factors of a norm that
            was folded into them; pruned ones too where the pruner keeps them
            (`Pruner.keeps_hidden`), else 0.
        mask: bool in the same shape, False where the weight is pruned now.
        gradient: the gradient of the loss, in the same shape, also where the weight is pruned; None
            unless the pruner needs it.
        input_norms: the Euclidean norm of each input over all samples and positions, in a shape
            that broadcasts against the weight; None unless the pruner needs it.
    """

    layer: str
    weight: Tensor
    mask: Tensor
    gradient: Tensor | None = None
    input_norms: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """A point in a schedule of pruning.

    Attributes:
        progress: the share of the schedule that is over, 0 to 1.
        sparsity: the share of the weights that should be pruned now.
    """

    progress: float
    sparsity: float


class Pruner:
    """Keeps the weights with the highest scores; it is the base class of every other pruner.

    A pruner of your own overrides `score`, and `check_pruner` says whether it keeps the contract.
    A pruner holds settings and no state, so that a resumed training prunes as an uninterrupted one.

    Args:
        sparsity: the share of the weights that are pruned, above 0 and below 1. None where the
            pattern is N:M, which decides it.
        pattern: None for single weights; `NofM(kept=2, group=4)` for 2:4 along the inputs;
            `Blocks(outputs=8, inputs=8)` for whole tiles of an 8×8 array.
        scope: which weights compete: those of one `layer`, those of one `output` of a layer, or
            all weights of the model (`global`).
        layers: the patterns of the layers to prune, as in the rules of recipes: names, "first",
            "last", "operator:linear" or "re:" with a regular expression. None for every layer that
            the pattern fits and that sums at least two inputs.

    Attributes:
        needs: what the pruner asks for beside the weights: "gradients", "inputs", or both.
        keeps_hidden: True if pruned weights keep their values and go on learning.
        follows_weights: True if training chooses the mask anew after every step.
        only_trains: True if the pruner prunes during a training, and not at once.

    Raises:
        PruningError: the settings contradict each other.
    """

    needs: frozenset[Need] = frozenset()
    keeps_hidden = False
    follows_weights = False
    only_trains = False

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        pattern: NofM | Blocks | None = None,
        scope: Literal["layer", "output", "global"] = "layer",
        layers: Sequence[str] | None = None,
    ):
        if isinstance(pattern, NofM):
            implied = 1 - pattern.kept / pattern.group
            if sparsity is not None and sparsity != implied:
                raise PruningError(
                    f"the pattern {pattern} prunes exactly {implied:g} of the weights, but the "
                    f"sparsity is {sparsity:g}; leave the sparsity out"
                )
            sparsity = implied
        elif pattern is not None and not isinstance(pattern, Blocks):
            raise PruningError(f"the pattern must be NofM, Blocks or None, found {pattern!r}")
        share = float("nan")
        if isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool):
            share = float(sparsity)
        if not 0 < share < 1:
            raise PruningError(
                f"the sparsity must be a number above 0 and below 1, found {sparsity!r}; it is the "
                "share of the weights that become zero"
            )
        if scope not in ("layer", "output", "global"):
            raise PruningError(f"the scope must be layer, output or global, found {scope!r}")
        if scope != "layer" and isinstance(pattern, NofM):
            raise PruningError(
                f"in the pattern {pattern} the inputs of one group compete; leave the scope out"
            )
        if scope == "output" and pattern is not None:
            raise PruningError("blocks hold several outputs; use the scope layer or global")
        if isinstance(layers, str) or (layers is not None and not layers):
            raise PruningError(f"layers must be a list of patterns of names, found {layers!r}")
        self.sparsity = share
        self.pattern = pattern
        self.scope: Literal["layer", "output", "global"] = scope
        self.layers = None if layers is None else tuple(layers)

    @property
    def needs_inputs(self) -> bool:
        """True if the pruner measures inputs, which only `prune` does."""
        return "inputs" in self.needs

    def score(self, weight: PrunableWeight) -> Tensor:
        """Returns how much each weight is worth, in the shape of the weight; more is better.

        The default is the magnitude.
        """
        return weight.weight.abs()

    def masks(self, weights: Sequence[PrunableWeight], sparsity: float) -> list[Tensor]:
        """Returns a mask for each weight, which keeps the highest scores.

        The score of a block is the mean score of its weights.

        Args:
            weights: the weights of all layers that are pruned.
            sparsity: the share of the weights to prune; an N:M pattern does not depend on it.

        Returns:
            Bool tensors in the shapes of the weights, False where a weight is pruned.
        """
        with torch.no_grad():
            scores = [self.checked_score(weight) for weight in weights]
            if isinstance(self.pattern, NofM):
                return [keep_of_groups(each, self.pattern) for each in scores]
            blocks = self.pattern
            units = scores if blocks is None else [block_scores(each, blocks) for each in scores]
            keep = self._keep(units, 1 - sparsity)
            if blocks is None:
                return keep
            shapes = [each.shape for each in scores]
            return [spread_blocks(k, blocks, s) for k, s in zip(keep, shapes, strict=True)]

    def checked_score(self, weight: PrunableWeight) -> Tensor:
        """Returns the scores of a weight, if there is one for each element.

        Raises:
            PruningError: the scores have another shape.
        """
        score = self.score(weight)
        if not isinstance(score, Tensor) or score.shape != weight.weight.shape:
            shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise PruningError(
                f"{type(self).__name__}.score returned {shape} for the weight of {weight.layer!r}, "
                f"which has shape {list(weight.weight.shape)}; return one score for each weight"
            )
        return score.detach()

    def _keep(self, units: Sequence[Tensor], share: float) -> list[Tensor]:
        if self.scope == "global":
            return keep_best_of_all(units, share)
        if self.scope == "output":
            return [keep_best_of_rows(each, share) for each in units]
        return keep_best(units, [share] * len(units))

    def first_masks(
        self, weights: Sequence[PrunableWeight], generator: torch.Generator
    ) -> list[Tensor]:
        """Returns the masks at the beginning of a training; by default, nothing is pruned.

        Args:
            weights: the weights of all layers that are pruned.
            generator: the source of random numbers, on the CPU.
        """
        return [torch.ones_like(weight.mask) for weight in weights]

    def update(self, weights: Sequence[PrunableWeight], moment: Moment) -> list[Tensor]:
        """Returns the masks from a moment of a training onwards; by default, those of `masks`."""
        return self.masks(weights, moment.sparsity)

    def gradient(self, weight: PrunableWeight) -> Tensor:
        """Returns the gradient that the optimizer gets, in the shape of the weight.

        By default, pruned weights get none, so they do not learn.

        Args:
            weight: the parameter that the optimizer changes, with its gradient, pruned weights
                included. A norm that was folded into it stays there.
        """
        return gradient_of(weight) * weight.mask

    def __repr__(self) -> str:
        settings = {name: value for name, value in vars(self).items() if value is not None}
        if isinstance(self.pattern, NofM):
            del settings["sparsity"]
        text = ", ".join(f"{name}={value}" for name, value in sorted(settings.items()))
        return f"{type(self).__name__}({text})"


def gradient_of(weight: PrunableWeight) -> Tensor:
    """Returns the gradient of a weight.

    Raises:
        PruningError: there is none.
    """
    if weight.gradient is None:
        raise PruningError(
            f"there is no gradient of the weight of {weight.layer!r}; the pruner must list "
            '"gradients" in `needs`'
        )
    return weight.gradient


def input_norms_of(weight: PrunableWeight) -> Tensor:
    """Returns the norms of a weight's inputs.

    Raises:
        PruningError: there are none.
    """
    if weight.input_norms is None:
        raise PruningError(
            f"there are no norms of the inputs of {weight.layer!r}; the pruner must list "
            '"inputs" in `needs`'
        )
    return weight.input_norms

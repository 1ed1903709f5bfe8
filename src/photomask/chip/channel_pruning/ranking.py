"""Chooses the sets of coupled channels that leave, by their scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from photomask.chip.channel_pruning.groups import ChannelGroup
from photomask.chip.channel_pruning.importance import Importance
from photomask.errors import UsageError


@dataclass(frozen=True)
class Ranking:
    """How many channels leave, and which ones.

    Attributes:
        share: the share of the channels that leave, from 0 to below 1.
        importance: what scores channels.
        across_layers: True to rank the channels of all groups together.
        multiple_of: the number of staying channels of a group is a multiple of this one.

    Raises:
        UsageError: the share is out of range, or `multiple_of` is below 1.
    """

    share: float
    importance: Importance
    across_layers: bool
    multiple_of: int

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UsageError(f"the share of channels must be from 0 to below 1, got {self.share}")
        if self.multiple_of < 1:
            raise UsageError(f"multiple_of must be at least 1, got {self.multiple_of}")

    def lowest(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> frozenset[int]:
        """Returns the sets of channels that leave.

        Args:
            model: the model that is pruned.
            groups: the groups of channels that can leave it.

        Raises:
            UsageError: the scores of a group have another number than its sets, or are not finite.
        """
        scores = self._scores(model, groups)
        counts = [math.floor(len(group) * self.share) for group in groups]
        if self.across_layers and groups:
            every = torch.cat(scores)
            order = torch.argsort(every, stable=True)[: math.floor(len(every) * self.share)]
            owners = torch.repeat_interleave(torch.tensor([len(group) for group in groups]))
            counts = torch.bincount(owners[order], minlength=len(groups)).tolist()
        removed: set[int] = set()
        for group, found, count in zip(groups, scores, counts, strict=True):
            step = _step(group, self.multiple_of)
            kept = max(1, math.ceil((len(group) - count) / step)) * step
            order = torch.argsort(found, stable=True)[: max(0, len(group) - kept)]
            removed |= {group.numbers[i] for i in order.tolist()}
        return frozenset(removed)

    def _scores(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
        """Returns the scores of all groups after checking them.

        Raises:
            UsageError: the scores of a group have another number than its sets, or are not finite.
        """
        scores = self.importance.scores(model, groups)
        for group, found in zip(groups, scores, strict=True):
            if found.shape != (len(group),) or not bool(torch.isfinite(found).all()):
                raise UsageError(
                    f"{type(self.importance).__name__} must give {len(group)} finite scores for "
                    f"{', '.join(group.layers)}, got shape {list(found.shape)}"
                )
        return [found.detach().cpu().double() for found in scores]


def _step(group: ChannelGroup, multiple_of: int) -> int:
    """Returns the multiple that the number of kept sets must be for one of channels."""
    sizes = {len(t.slices[0]) for t in group.tensors if t.produces}
    return math.lcm(*(multiple_of // math.gcd(multiple_of, size) for size in sizes))

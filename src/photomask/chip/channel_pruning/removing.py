"""Chooses the channels that leave a model, and removes them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from photomask.chip.channel_pruning.closing import close
from photomask.chip.channel_pruning.coupling import Coupling
from photomask.chip.channel_pruning.cutting import cut
from photomask.chip.channel_pruning.groups import ChannelGroup, find_groups
from photomask.chip.channel_pruning.importance import Importance, Magnitude
from photomask.chip.channel_pruning.plan import (
    ChannelPlan,
    StayingChannels,
    layer_of,
    sizes_of,
)
from photomask.chip.channel_pruning.trial import Failure, try_out
from photomask.chip.data import Data
from photomask.chip.graph import capture
from photomask.chip.graph.capture import capture_with_batches
from photomask.chip.graph.examples import example_inputs
from photomask.chip.graph.float_model import as_module
from photomask.errors import CaptureError, UsageError
from photomask.stages import stage

Choice = Mapping[str, Sequence[int]]
"""By name of a layer, the output channels that leave."""


@dataclass(eq=False)
class Analysis:
    """What is known of a model's channels.

    Attributes:
        model: the model, which is not changed.
        coupling: which channels leave together.
        batch: samples on which a cut model is tried out.
        names: the names of the inputs, where they were given.
    """

    model: nn.Module
    coupling: Coupling
    batch: Sequence[Tensor]
    names: Sequence[str]

    def groups(self) -> list[ChannelGroup]:
        """Returns the groups of channels that can leave."""
        return find_groups(self.coupling, self.model)

    def without(self, removed: frozenset[int]) -> tuple[nn.Module, Failure | None]:
        """Returns the model without sets of channels, and what fails in it."""
        leaving = cuts_of(self.groups(), removed)
        model = cut(self.model, leaving)
        return model, try_out(model, self.coupling, removed, self.batch, self.names)


def analyse(model: nn.Module, example: Data) -> Analysis:
    """Captures a model and finds its coupled channels.

    Raises:
        UsageError: the model is no module.
        CaptureError: the model cannot be captured.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"channels can be removed from a torch.nn.Module, got {type(model).__name__}; "
            "give the module before its export"
        )
    model = as_module(model)
    graph, batches = capture_with_batches(model, example)
    coupling = Coupling(graph)
    close(coupling)
    return Analysis(model, coupling, batches[0], example_inputs(model, example)[1])


def cuts_of(
    groups: Sequence[ChannelGroup], removed: frozenset[int]
) -> dict[tuple[str, int], frozenset[int]]:
    """Returns the indices that leave each tensor of the model, by tensor and axis."""
    found: dict[tuple[str, int], frozenset[int]] = {}
    for group in groups:
        for tensor in group.tensors:
            leaving = {
                index
                for number, places in zip(group.numbers, tensor.slices, strict=True)
                if number in removed
                for index in places
            }
            if leaving:
                key = tensor.name, tensor.axis
                found[key] = found.get(key, frozenset()) | leaving
    return found


@stage(__name__, "plan channels")
def plan_channels(
    model: nn.Module,
    example: Data,
    share: float,
    *,
    importance: Importance | None = None,
    across_layers: bool = False,
    multiple_of: int = 1,
) -> ChannelPlan:
    """Chooses the channels that leave a model, and tries out the model without them.

    Channels that other channels or the model's code need stay, and the plan says why. At least one
    channel of each group stays.

    Args:
        model: a module that `torch.export` can capture. It is not changed.
        example: inputs with the batch at axis 0, as for `prepare`.
        share: the share of the removable channels that leave, from 0 to below 1.
        importance: what scores channels; `Magnitude()` if None.
        across_layers: True to rank all channels of the model together, so that layers lose
            different shares. Otherwise every group loses the same share.
        multiple_of: the number of output channels that stay in each layer of a group is a multiple
            of this one, or all of them stay. It is rounded up.

    Raises:
        UsageError: the share is out of range, or `multiple_of` is below 1.
        CaptureError: the model cannot be captured, or its code does not work without any channels.
        DataError: the example is empty, complex or not finite.
    """
    if not 0 <= share < 1:
        raise UsageError(f"the share of channels must be from 0 to below 1, got {share}")
    if multiple_of < 1:
        raise UsageError(f"multiple_of must be at least 1, got {multiple_of}")
    analysis = analyse(model, example)
    importance = importance or Magnitude()
    while True:
        groups = analysis.groups()
        scores = _scores(importance, analysis.model, groups)
        removed = _lowest(groups, scores, share, across_layers, multiple_of)
        after, failure = analysis.without(removed)
        if failure is None:
            return plan_of(analysis, removed, after)
        _hold(analysis.coupling, groups, failure)


@stage(__name__, "remove channels")
def remove_channels(
    model: nn.Module,
    example: Data,
    plan: ChannelPlan | Choice | float,
    *,
    importance: Importance | None = None,
    across_layers: bool = False,
    multiple_of: int = 1,
) -> nn.Module:
    """Returns a copy of a model without some of its channels.

    The copy computes what the model computes if the removed channels are zero wherever they are
    read. All channels that can only leave together leave together. The copy is a module as the
    original one: train it, `prepare` it, and compare its program with it.

    Args:
        model: a module that `torch.export` can capture. It is not changed.
        example: inputs with the batch at axis 0, as for `prepare`.
        plan: a plan; or by name of a layer the output channels that leave; or the share of the
            channels that leave, which is planned by `plan_channels`.
        importance: what scores channels, for a share.
        across_layers: True to rank all channels of the model together, for a share.
        multiple_of: what the number of staying channels is a multiple of, for a share.

    Raises:
        UsageError: a layer or channel does not exist, or a channel must stay; the message says why.
        CaptureError: the model cannot be captured, or its code does not work without the channels.
        DataError: the example is empty, complex or not finite.
    """
    if isinstance(plan, (int, float)):
        plan = plan_channels(
            model,
            example,
            plan,
            importance=importance,
            across_layers=across_layers,
            multiple_of=multiple_of,
        )
    choice = plan.removed if isinstance(plan, ChannelPlan) else plan
    analysis = analyse(model, example)
    removed = chosen(analysis, choice)
    after, failure = analysis.without(removed)
    if failure is not None:
        layers = [g.layers[0] for g in analysis.groups() if failure.channels & set(g.numbers)]
        raise CaptureError(
            f"channels of {', '.join(layers) or 'the model'} cannot be removed: {failure.reason}; "
            "leave them out, or write the sizes in this code so that they follow from the tensors"
        )
    return after


def chosen(analysis: Analysis, choice: Choice) -> frozenset[int]:
    """Returns the sets of channels that contain the chosen ones.

    Raises:
        UsageError: a layer or channel does not exist, or must stay.
    """
    unions = analysis.coupling.unions
    groups = analysis.groups()
    known = {number for group in groups for number in group.numbers}
    axes = {layer_of(name): (name, axis) for name, axis in sorted(analysis.coupling.producers)}
    found: set[int] = set()
    for layer, channels in choice.items():
        if layer not in axes:
            raise UsageError(
                f"the model has no layer {layer!r} whose channels are known; the layers are "
                f"{', '.join(axes)}"
            )
        roots = unions.roots(analysis.coupling.axes[axes[layer]])
        for channel in channels:
            if not 0 <= channel < len(roots):
                raise UsageError(f"{layer!r} has no output channel {channel}, but {len(roots)}")
            root = int(roots[channel])
            if root not in known:
                reason = unions.reasons.get(root, "no edge of the graph holds it")
                raise UsageError(f"channel {channel} of {layer!r} must stay: {reason}")
            found.add(root)
    for group in groups:
        if set(group.numbers) <= found:
            raise UsageError(
                f"all channels of {', '.join(group.layers)} would leave; keep at least one"
            )
    return frozenset(found)


def plan_of(
    analysis: Analysis,
    removed: frozenset[int],
    after: nn.Module,
    addends: Mapping[str, Tensor] | None = None,
) -> ChannelPlan:
    """Returns the plan of removing sets of channels, with the sizes of the model without them."""
    coupling, model = analysis.coupling, analysis.model
    unions = coupling.unions
    leaving: dict[str, tuple[int, ...]] = {}
    staying: list[StayingChannels] = []
    for name, axis in sorted(coupling.producers):
        roots = unions.roots(coupling.axes[name, axis])
        gone = np.flatnonzero(np.isin(roots, list(removed)))
        if len(gone):
            leaving[layer_of(name)] = tuple(gone.tolist())
        reasons: dict[str, int] = {}
        for root in roots.tolist():
            if root in unions.reasons:
                reason = unions.reasons[root]
                reasons[reason] = reasons.get(reason, 0) + 1
        staying += [StayingChannels(layer_of(name), n, reason) for reason, n in reasons.items()]
    graph = capture(after, tuple(analysis.batch) if not analysis.names else dict(
        zip(analysis.names, analysis.batch, strict=True)
    ))
    return ChannelPlan(
        leaving,
        sizes_of(coupling.graph, model),
        sizes_of(graph, after),
        (_count(model), _count(after)),
        tuple(staying),
        addends or {},
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _hold(coupling: Coupling, groups: Sequence[ChannelGroup], failure: Failure) -> None:
    """Holds all channels of the groups that failing code handles.

    Raises:
        CaptureError: the code handles none of the removed channels, so the failure has another
            cause.
    """
    if not failure.channels:
        raise CaptureError(f"no channels can be removed: {failure.reason}")
    for group in groups:
        if failure.channels & set(group.numbers):
            coupling.unions.hold(np.array(group.numbers), failure.reason)
    close(coupling)


def _scores(
    importance: Importance, model: nn.Module, groups: Sequence[ChannelGroup]
) -> list[Tensor]:
    """Returns the scores of all groups after checking them.

    Raises:
        UsageError: the scores of a group have another number than its sets, or are not finite.
    """
    scores = importance.scores(model, groups)
    for group, found in zip(groups, scores, strict=True):
        if found.shape != (len(group),) or not bool(torch.isfinite(found).all()):
            raise UsageError(
                f"{type(importance).__name__} must give {len(group)} finite scores for "
                f"{', '.join(group.layers)}, got shape {list(found.shape)}"
            )
    return [found.detach().cpu().double() for found in scores]


def _lowest(
    groups: Sequence[ChannelGroup],
    scores: Sequence[Tensor],
    share: float,
    across_layers: bool,
    multiple_of: int,
) -> frozenset[int]:
    """Returns the sets with the lowest scores."""
    counts = [math.floor(len(group) * share) for group in groups]
    if across_layers and groups:
        every = torch.cat(list(scores))
        order = torch.argsort(every, stable=True)[: math.floor(len(every) * share)]
        owners = torch.repeat_interleave(torch.tensor([len(g) for g in groups]))
        counts = torch.bincount(owners[order], minlength=len(groups)).tolist()
    removed: set[int] = set()
    for group, found, count in zip(groups, scores, counts, strict=True):
        step = _step(group, multiple_of)
        kept = max(1, math.ceil((len(group) - count) / step)) * step
        order = torch.argsort(found, stable=True)[: max(0, len(group) - kept)]
        removed |= {group.numbers[i] for i in order.tolist()}
    return frozenset(removed)


def _step(group: ChannelGroup, multiple_of: int) -> int:
    """Returns the multiple that the number of kept sets must be for one of channels."""
    sizes = {len(t.slices[0]) for t in group.tensors if t.produces}
    return math.lcm(*(multiple_of // math.gcd(multiple_of, size) for size in sizes))

"""Chooses the channels that leave a model, and removes them."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from photomask.chip.channel_pruning.analysis import Analysis, analyse
from photomask.chip.channel_pruning.closing import close
from photomask.chip.channel_pruning.dead_channels import DeadChannels, find_dead
from photomask.chip.channel_pruning.groups import ChannelGroup
from photomask.chip.channel_pruning.importance import Importance, Magnitude
from photomask.chip.channel_pruning.plan import (
    ChannelPlan,
    StayingChannels,
    sizes_of,
)
from photomask.chip.channel_pruning.ranking import Ranking
from photomask.chip.channel_pruning.trial import Failure
from photomask.chip.data import Data
from photomask.errors import CaptureError, UsageError
from photomask.stages import stage

Choice = Mapping[str, Sequence[int]]
"""By name of a layer, the output channels that leave."""


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
    ranking = Ranking(share, importance or Magnitude(), across_layers, multiple_of)
    return planned(model, example, ranking)[0]


@stage(__name__, "plan dead channels")
def plan_dead_channels(model: nn.Module, example: Data) -> ChannelPlan:
    """Chooses the channels without which a model computes the same.

    They are the channels that only zero weights read, and those whose values are zero for every
    input, or another constant that can be added to the bias of the layers that read it. Other
    constant channels stay, and the plan says why. At least one channel of each group stays.

    Args:
        model: a module that `torch.export` can capture. It is not changed.
        example: inputs with the batch at axis 0, as for `prepare`.

    Raises:
        UsageError: the model is no module.
        CaptureError: the model cannot be captured, or its code does not work without any channels.
        DataError: the example is empty, complex or not finite.
    """
    analysis = analyse(model, example)
    while True:
        dead = find_dead(analysis)
        removed = frozenset(dead.removed)
        after, failure = analysis.without(removed, dead.addends)
        if failure is None:
            return plan_of(analysis, removed, after, dead)
        _hold(analysis, analysis.groups(), removed, failure)


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
        ranking = Ranking(plan, importance or Magnitude(), across_layers, multiple_of)
        return planned(model, example, ranking)[1]
    choice = plan.removed if isinstance(plan, ChannelPlan) else plan
    addends = plan.addends if isinstance(plan, ChannelPlan) else None
    analysis = analyse(model, example)
    removed = chosen(analysis, choice)
    after, failure = analysis.without(removed, addends)
    if failure is not None:
        layers = [g.layers[0] for g in analysis.groups() if failure.channels & set(g.numbers)]
        raise CaptureError(
            f"channels of {', '.join(layers) or 'the model'} cannot be removed: {failure.reason}; "
            "leave them out, or write the sizes in this code so that they follow from the tensors"
        )
    return after


def planned(model: nn.Module, example: Data, ranking: Ranking) -> tuple[ChannelPlan, nn.Module]:
    """Returns a plan and the model without the channels that leave.

    Channels that the model's code cannot do without are held, and the others are ranked again.

    Raises:
        UsageError: the scores are not as they must be.
        CaptureError: the model cannot be captured, or its code does not work without any channels.
        DataError: the example is empty, complex or not finite.
    """
    analysis = analyse(model, example)
    while True:
        groups = analysis.groups()
        removed = ranking.lowest(analysis.model, groups)
        after, failure = analysis.without(removed)
        if failure is None:
            return plan_of(analysis, removed, after), after
        _hold(analysis, groups, removed, failure)


def chosen(analysis: Analysis, choice: Choice) -> frozenset[int]:
    """Returns the sets of channels that contain the chosen ones.

    Raises:
        UsageError: a layer or channel does not exist, or must stay.
    """
    unions = analysis.coupling.unions
    groups = analysis.groups()
    known = {number for group in groups for number in group.numbers}
    axes = analysis.layers()
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
    dead: DeadChannels | None = None,
) -> ChannelPlan:
    """Returns the plan of removing sets of channels, with the sizes of the model without them."""
    coupling, model = analysis.coupling, analysis.model
    unions = coupling.unions
    leaving: dict[str, tuple[int, ...]] = {}
    staying: list[StayingChannels] = []
    for layer, place in analysis.layers().items():
        roots = unions.roots(coupling.axes[place])
        gone = np.flatnonzero(np.isin(roots, list(removed)))
        if len(gone):
            leaving[layer] = tuple(gone.tolist())
        reasons: dict[str, int] = {}
        stay = unions.reasons | ({} if dead is None else dead.staying)
        for root in roots.tolist():
            if root in stay and root not in removed:
                reason = stay[root]
                reasons[reason] = reasons.get(reason, 0) + 1
        staying += [StayingChannels(layer, n, reason) for reason, n in reasons.items()]
    return ChannelPlan(
        leaving,
        sizes_of(coupling, model, frozenset()),
        sizes_of(coupling, after, removed),
        (_count(model), _count(after)),
        tuple(staying),
        None if dead is None else dead.addends,
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _hold(
    analysis: Analysis,
    groups: Sequence[ChannelGroup],
    removed: frozenset[int],
    failure: Failure,
) -> None:
    """Holds all channels of the groups that failing code handles.

    Code whose results the model does not use is not in the graph. Then the groups are held that
    fail one by one.

    Raises:
        CaptureError: no group fails alone, so the failure has another cause.
    """
    blamed = [group for group in groups if failure.channels & set(group.numbers)]
    if not blamed:
        alone = {group: removed & set(group.numbers) for group in groups}
        blamed = [group for group, some in alone.items() if some and analysis.without(some)[1]]
    if not blamed:
        raise CaptureError(f"no channels can be removed: {failure.reason}")
    for group in blamed:
        analysis.coupling.unions.hold(np.array(group.numbers), failure.reason)
    close(analysis.coupling)

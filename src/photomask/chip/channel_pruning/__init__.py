"""Removes whole channels from a float model, with everything that belongs to them.

The graph of the model says which channels can only leave together. Nothing here knows a model or a
layer by name.
"""

from photomask.chip.channel_pruning.groups import ChannelGroup, CoupledTensor
from photomask.chip.channel_pruning.importance import (
    BatchNormGain,
    Importance,
    Magnitude,
    Taylor,
)
from photomask.chip.channel_pruning.plan import ChannelPlan, LayerSize, StayingChannels
from photomask.chip.channel_pruning.removing import (
    plan_channels,
    plan_dead_channels,
    remove_channels,
)

__all__ = [
    "BatchNormGain",
    "ChannelGroup",
    "ChannelPlan",
    "CoupledTensor",
    "Importance",
    "LayerSize",
    "Magnitude",
    "StayingChannels",
    "Taylor",
    "plan_channels",
    "plan_dead_channels",
    "remove_channels",
]

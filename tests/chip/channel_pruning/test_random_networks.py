"""Random networks: removing channels equals zeroing them, and dead channels change nothing."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.chip.channel_pruning.networks import IMAGES
from tests.chip.channel_pruning.zeroing import assert_equals_zeroing, randomized
from torch import Tensor, nn

from photomask.chip.channel_pruning import plan_dead_channels, remove_channels

FAST = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
STEPS = ("convolution", "grouped", "depthwise", "norm", "relu", "add", "join", "gate", "pool")


class Random(nn.Module):
    """A network of random steps, each of which reads earlier feature maps.

    Args:
        steps: kinds of steps, each with a number that chooses what it reads.
    """

    def __init__(self, steps: list[tuple[str, int]]):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1)])
        self.reads: list[tuple[str, int, int]] = [("layer", -1, -1)]
        channels = [4]
        for kind, number in steps:
            first = number % len(channels)
            second = number // 7 % len(channels)
            width = channels[first]
            layer: nn.Module = nn.Identity()
            if kind in ("add", "gate") and width != channels[second]:
                kind = "join"
            if kind == "convolution":
                layer = nn.Conv2d(width, 2 + number % 5, 1 + 2 * (number % 2), padding=number % 2)
                width = 2 + number % 5
            elif kind == "grouped" and width % 2 == 0:
                layer = nn.Conv2d(width, 6, 3, padding=1, groups=2, bias=False)
                width = 6
            elif kind == "depthwise":
                layer = nn.Conv2d(width, width, 3, padding=1, groups=width)
            elif kind == "norm":
                layer = nn.BatchNorm2d(width)
            elif kind == "relu":
                layer = nn.ReLU()
            elif kind == "pool":
                layer = nn.AvgPool2d(3, 1, 1) if number % 2 else nn.MaxPool2d(3, 1, 1)
            elif kind == "join":
                width += channels[second]
            known = kind in ("add", "join", "gate")
            self.layers.append(layer)
            self.reads.append((kind if known else "layer", first, second))
            channels.append(width)
        self.head = nn.Linear(channels[-1] + channels[len(channels) // 2], 3)

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for layer, (kind, first, second) in zip(self.layers, self.reads, strict=True):
            if not maps:
                maps.append(layer(x))
            elif kind == "add":
                maps.append(maps[first] + maps[second])
            elif kind == "gate":
                maps.append(maps[first] * torch.sigmoid(maps[second]))
            elif kind == "join":
                maps.append(torch.cat([maps[first], maps[second]], dim=1))
            else:
                maps.append(layer(maps[first]))
        return self.head(torch.cat([maps[-1], maps[len(maps) // 2]], dim=1).mean((2, 3)))


RANDOM = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 1000)), min_size=4, max_size=9
).map(Random)


@FAST
@given(model=RANDOM, share=st.sampled_from([0.3, 0.6, 0.9]))
def test_removing_equals_zeroing_in_random_networks(model: Random, share: float):
    smaller = remove_channels(randomized(model), IMAGES, share)
    assert_equals_zeroing(model, smaller, IMAGES)


@FAST
@given(model=RANDOM, seed=st.integers(0, 99))
def test_dead_channels_of_random_networks_leave_without_a_change(model: Random, seed: int):
    generator = torch.Generator().manual_seed(seed)
    randomized(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                rows = torch.rand(len(module.weight), generator=generator) < 0.5
                module.weight[rows] = 0
                module.weight[:, torch.rand(module.weight.shape[1], generator=generator) < 0.3] = 0
        plan = plan_dead_channels(model, IMAGES)
        smaller = remove_channels(model, IMAGES, plan)
        expected = model.double()(IMAGES.double())
    assert plan.parameters[1] == sum(parameter.numel() for parameter in smaller.parameters())
    found = smaller.double()(IMAGES.double())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

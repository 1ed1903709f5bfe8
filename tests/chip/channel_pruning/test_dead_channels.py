"""Channels that are zero or constant leave, and the model computes the same."""

import copy

import pytest
import torch
from tests.chip.channel_pruning.networks import IMAGES
from tests.chip.channel_pruning.zeroing import randomized
from torch import Tensor, nn

from photomask.chip.channel_pruning import plan_dead_channels, remove_channels


@pytest.fixture
def model() -> nn.Sequential:
    """Returns convolutions of which the second has no padding, and the third has some."""
    found = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 64, 4),
    )
    randomized(found)
    return found


def assert_same(model: nn.Module, smaller: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        found = copy.deepcopy(smaller).double()(x.double())
    # Added biases are rounded to float32.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_channels_of_zero_weights_leave_and_their_constants_are_added_to_biases(
    model: nn.Sequential,
):
    with torch.no_grad():
        model[0].weight[[1, 3, 5]] = 0
        model[1].running_mean.zero_()
        model[1].bias[[1, 3, 5]] = torch.tensor([-1.0, 2.0, 1.0])
    plan = plan_dead_channels(model, IMAGES)
    assert plan.removed == {"0": (1, 3, 5)}
    assert plan.addends is not None
    weight = model[3].weight.double()[:, :, 0, 0]
    torch.testing.assert_close(plan.addends["3"], 2 * weight[:, 3] + weight[:, 5])
    smaller = remove_channels(model, IMAGES, plan)
    assert_same(model, smaller, IMAGES)
    assert model[3].bias is None
    assert smaller[3].bias is not None


def test_a_constant_in_front_of_padding_stays_and_the_plan_says_so(model: nn.Sequential):
    model[3] = nn.Conv2d(8, 6, 1)
    randomized(model)
    with torch.no_grad():
        model[3].weight[[2, 4]] = 0
        model[3].bias[[2, 4]] = torch.tensor([0.7, -0.7])
    plan = plan_dead_channels(model, IMAGES)
    assert plan.removed == {"3": (4,)}
    (stays,) = (stays for stays in plan.staying if stays.layer == "3")
    assert stays.count == 1
    assert "differs at the border" in stays.reason
    assert_same(model, remove_channels(model, IMAGES, plan), IMAGES)


def test_channels_that_only_zero_weights_read_leave_with_what_only_they_read(
    model: nn.Sequential,
):
    with torch.no_grad():
        model[5].weight[:, 1] = 0
        model[3].weight[[0, 2, 3, 4, 5], 6] = 0  # channel 6 is read by channel 1 alone
    plan = plan_dead_channels(model, IMAGES)
    assert plan.removed == {"0": (6,), "3": (1,)}
    assert_same(model, remove_channels(model, IMAGES, plan), IMAGES)


def test_a_model_without_dead_channels_keeps_all(model: nn.Sequential):
    plan = plan_dead_channels(model, IMAGES)
    assert plan.removed == {}
    assert plan.parameters[0] == plan.parameters[1]
    assert_same(model, remove_channels(model, IMAGES, plan), IMAGES)


def test_one_channel_stays_where_all_are_dead(model: nn.Sequential):
    with torch.no_grad():
        model[3].weight.zero_()
    plan = plan_dead_channels(model, IMAGES)
    smaller = remove_channels(model, IMAGES, plan)
    assert smaller[3].out_channels == 1
    assert smaller[0].out_channels == 1
    assert_same(model, smaller, IMAGES)

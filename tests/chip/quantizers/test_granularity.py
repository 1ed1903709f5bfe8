import numpy as np
import pytest
import torch

from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor
from photomask.errors import DataError, RecipeError


def test_rows_of_a_tensor_hold_every_value_once():
    for x in (
        torch.arange(24.0).reshape(2, 3, 4),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(4, 5).T,
        torch.tensor(3.0),
    ):
        rows = PerTensor().rows(x)
        assert rows.shape == (1, x.numel())
        assert torch.equal(rows[0].sort().values, x.flatten().sort().values)


def test_channels_last_activations_are_not_copied():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert PerTensor().rows(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_channel_row_holds_that_channel(axis):
    x = torch.randn(2, 3, 4)
    rows = PerChannel(axis).rows(x)
    for channel in range(x.shape[axis]):
        expected = np.take(x.numpy(), channel, axis)
        np.testing.assert_array_equal(np.sort(rows[channel].numpy()), np.sort(expected.ravel()))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_channel_parameter_meets_its_channel(axis):
    x = torch.ones(2, 3, 4)
    parameter = torch.arange(float(x.shape[axis]))
    product = x * PerChannel(axis).align(parameter, x)
    for channel in range(x.shape[axis]):
        assert (np.take(product.numpy(), channel, axis) == channel).all()


@pytest.mark.parametrize("shape", [(2, 7), (2, 7, 3), (2, 7, 3, 2), (2, 6, 1, 1), (2, 2)])
def test_a_group_is_consecutive_input_channels(shape):
    groups = PerGroup(3)
    x = torch.randn(shape)
    count = groups.groups(shape[1])
    rows = groups.rows(x).reshape(2, count, -1)
    parameter = torch.arange(2.0 * count).reshape(2, count)
    spread = groups.align(parameter, x).expand(shape)
    for output in range(2):
        for group in range(count):
            members = slice(3 * group, 3 * group + 3)
            expected = x[output, members].flatten()
            assert torch.equal(rows[output, group][rows[output, group] != 0], expected)
            assert (spread[output, members] == parameter[output, group]).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="the channel axis is 2, which a tensor of shape"):
        PerChannel(2).rows(torch.zeros(3, 4))
    with pytest.raises(DataError, match="3 channels were calibrated"):
        PerChannel(0).align(torch.ones(3), torch.zeros(4, 4))
    with pytest.raises(DataError, match="scales per group need a weight"):
        PerGroup(2).rows(torch.zeros(3))
    with pytest.raises(DataError, match="2 x 2 groups"):
        PerGroup(2).align(torch.ones(2, 2), torch.zeros(2, 9))


@pytest.mark.parametrize("arguments", [(0,), (-1,), (4, 0), (4, 13)])
def test_impossible_groups_are_refused(arguments):
    with pytest.raises(RecipeError):
        PerGroup(*arguments)

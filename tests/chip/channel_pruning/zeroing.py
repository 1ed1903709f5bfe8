"""The oracle of removed channels: the original model whose weights that read them are zero."""

import copy

import torch
from torch import Tensor, nn


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Returns a model in evaluation mode whose every number is drawn, so that none is met twice."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator)
                spread = 1.0 if tensor.ndim < 2 else 3.0 / tensor[0].numel() ** 0.5
                tensor.copy_(drawn + 0.2 if "var" in name else (drawn - 0.5) * spread)
    return model.eval()


def zeroed(model: nn.Module, smaller: nn.Module) -> nn.Module:
    """Returns a model in float64 whose weights are zero where a smaller one has no column for them.

    Which columns are left is read from the numbers, which are drawn at random.
    """
    model, smaller = copy.deepcopy(model).double(), copy.deepcopy(smaller).double()
    left = dict(smaller.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2 or weight.shape[1] == left[name].shape[1]:
                continue
            axes = [axis for axis in range(weight.ndim) if axis != 1]
            columns = torch.isin(weight, left[name]).sum(axes) >= left[name][:, 0].numel()
            assert int(columns.sum()) == left[name].shape[1]
            weight.mul_(columns.reshape(1, -1, *(1,) * (weight.ndim - 2)))
    return model


def assert_equals_zeroing(model: nn.Module, smaller: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = zeroed(model, smaller)(x.double())
        found = copy.deepcopy(smaller).double()(x.double())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import calibrate, convert, load_recipe, load_target, prepare
from photomask.chip.decoding import prepare_like
from photomask.errors import CaptureError, UsageError


class Rows(nn.Module):
    """A layer of each row; one more where there are many."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.tanh(y) if x.shape[1] > 8 else y


def test_other_shapes_share_weights_and_quantizers():
    model, x = Rows(), torch.randn(4, 5, 4)
    first = prepare(model, load_recipe("w8a8"), x)
    calibrate(first, x)
    second = prepare_like(first, model, x[:, :1])
    torch.testing.assert_close(second(x[:, 2:3])[0], first(x)[0][:, 2:3], rtol=0, atol=0)
    long, short = (convert(prepared, load_target("asic")) for prepared in (first, second))
    assert long.edges["layer"].scale == short.edges["layer"].scale
    assert all((long.tensors[name] == short.tensors[name]).all() for name in long.tensors)


def test_a_model_that_computes_something_else_with_other_shapes_is_refused():
    model, x = Rows(), torch.randn(4, 5, 4)
    first = prepare(model, load_recipe("w8a8"), x)
    with pytest.raises(CaptureError, match="with inputs of these shapes the model computes 'tanh'"):
        prepare_like(first, model, torch.randn(4, 9, 4))


def test_states_that_do_not_exist_are_refused():
    model, x = Rows(), torch.randn(4, 5, 4)
    with pytest.raises(UsageError, match="got 'y'; the model's floating-point inputs are x"):
        prepare(model, load_recipe("w8a8"), x, states={"y": 0})
    with pytest.raises(UsageError, match="carries output 1, which does not exist; the model has 1"):
        prepare(model, load_recipe("w8a8"), x, states={"x": 1})

"""An encoder and images small enough to pre-train in a second."""

import torch
from tests.chip.training.learning import Tiny, task
from torch import Tensor, nn

from photomask.chip.pretraining import Encoder, RandomViews
from photomask.chip.training import Schedule

SHORT = Schedule(epochs=2, batch_size=32, optimizer="adamw", learning_rate=0.02)
WIDTHS = (16, 16)
VIEWS = RandomViews(smallest_area=0.8, flip=False, brightness=0.2, contrast=0.2, blur=0.1)


def images() -> Tensor:
    return task()[0]


def encoder(seed: int = 3) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(Tiny().eval(), "head")


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(first: nn.Module, second: nn.Module) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]

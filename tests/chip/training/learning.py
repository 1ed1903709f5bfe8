"""A task small enough to learn in a second, and quantizers that learn with it."""

import copy
from functools import cache

import torch
from torch import Tensor, nn

from photomask.chip import PreparedModel, Quantizer, Recipe, calibrate, prepare
from photomask.chip.quantizers import PerChannel
from photomask.chip.training import TrainingSettings

SHORT = TrainingSettings(epochs=2, batch_size=16, learning_rate=0.2, quantizer_learning_rate=1e-3)


class LearnedScale(Quantizer):
    """The base quantizer with its scale as a parameter."""

    def register_scale(self) -> None:
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))


class Tiny(nn.Module):
    """Two convolutions with batch norms, a residual addition and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)).mean(dim=(2, 3)))


def recipe(bits: int = 4, **changes: object) -> Recipe:
    weight = LearnedScale(bits, granularity=PerChannel(), narrow=True)
    activation = LearnedScale(bits, symmetric=False)
    return Recipe(f"learned{bits}", weight=weight, activation=activation, **changes)  # type: ignore[arg-type]


def task(count: int = 64) -> tuple[Tensor, Tensor]:
    """Images whose class is where they are bright: left, right or nowhere."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(count) % 3
    images = 0.3 * torch.randn(count, 1, 8, 8, generator=generator)
    images[labels == 0, :, :, :4] += 1
    images[labels == 1, :, 4:, 4:] += 2
    return images, labels


def tiny_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Tiny().train()
    with torch.no_grad():
        for _ in range(30):
            model(task()[0])
    return model.eval()


@cache
def prepared_once(bits: int) -> PreparedModel:
    return prepared_with(recipe(bits))


def prepared_with(asked: Recipe) -> PreparedModel:
    images, _ = task()
    prepared = prepare(tiny_model(), asked, images[:1])
    calibrate(prepared, images)
    return prepared


def prepared_model(bits: int = 4) -> PreparedModel:
    """A fresh model; capture takes longer than training here, so it is a copy."""
    return copy.deepcopy(prepared_once(bits))


def state_of(prepared: PreparedModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in prepared.state_dict().items()}


def assert_equal_states(first: PreparedModel, second: PreparedModel) -> None:
    one, other = state_of(first), state_of(second)
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def codes_of(prepared: PreparedModel) -> dict[str, Tensor]:
    """Returns the codes of every weight, by layer."""
    return {
        layer.node.name: layer.quantizer.quantize(layer.measured_weight.detach()).detach()
        for layer in prepared.layers()
    }

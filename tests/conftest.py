import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)

# The same examples in every run; a failure is a fact, not a mood.
settings.register_profile("deterministic", deadline=None, derandomize=True)
settings.load_profile("deterministic")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers are the parallelism


def _stand_in_for_torchvision_operators() -> list[torch.library.Library]:
    """Lets torchvision, which timm needs, be imported where its compiled operators cannot load.

    Its wheel may have been built for another PyTorch than the one installed. Two operator schemas
    are missed at import; models, transforms and image files work without what is behind them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return []
    try:
        for path in Path(found.origin).parent.glob("_C*"):
            torch.ops.load_library(path)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return [library]
    return []


_LIBRARIES = _stand_in_for_torchvision_operators()  # schemas live as long as these


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none; `make test-gpu` runs nothing else."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class SmallNetwork(nn.Module):
    """Convolution, batch norm, ReLU, a residual addition, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(scope="session")
def small_network() -> nn.Module:
    """A float network [batch, 3, 12, 12] → [batch, 5] in evaluation mode; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SmallNetwork().eval()


@pytest.fixture(scope="session")
def small_images() -> Tensor:
    """Sixteen inputs of `small_network`."""
    return torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def small_prepared(small_network: nn.Module, small_images: Tensor) -> PreparedModel:
    """`small_network`, prepared with `w8a8` and calibrated; not to be changed."""
    prepared = prepare(small_network, load_recipe("w8a8"), small_images[:1])
    calibrate(prepared, small_images)
    return prepared


@pytest.fixture(scope="session")
def small_program(small_prepared: PreparedModel) -> IntegerProgram:
    """`small_network` as an integer program for the target `asic`; not to be changed."""
    return convert(small_prepared, load_target("asic"))

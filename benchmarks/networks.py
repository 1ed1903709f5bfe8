"""The networks and images that the benchmarks share."""

import importlib.util
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from photomask import zoo
from photomask.errors import MissingDependencyError

TIMM_MODELS = (
    "resnet18",
    "resnet50",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "efficientnet_lite0",
    "regnetx_002",
    "densenet121",
    "vgg11_bn",
)
"""The convolutional networks that must convert, with no line of code about any of them."""


def images_for(network: str, count: int, *, seed: int = 0) -> Tensor:
    """Returns images for a network of the zoo; seed 0 is for calibration, others are for tests."""
    if zoo.entry(network).data in ("ImageNet-1k", "photographs"):
        return zoo.photograph_crops(count, seed=seed)
    if seed:
        return zoo.test_set()[0][:count]
    return zoo.calibration_set(count)[0]


def timm_model(name: str) -> nn.Module:
    """Builds a network of timm with random weights, the same in every process.

    Raises:
        MissingDependencyError: timm or torchvision is not installed.
        RuntimeError: timm has no such network.
    """
    for package in ("timm", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "timm torchvision", "a network of timm")
    stand_in_for_torchvision_operators()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False).eval()


@cache
def stand_in_for_torchvision_operators() -> torch.library.Library | None:
    """Lets torchvision be imported where its compiled operators do not fit the PyTorch installed.

    timm and some peers import it for its models and transforms alone; at import it misses two
    operator schemas. They live as long as the library that is returned, which the cache holds.
    """
    specification = importlib.util.find_spec("torchvision")
    if specification is None or specification.origin is None:
        return None
    try:
        for compiled in Path(specification.origin).parent.glob("_C*"):
            torch.ops.load_library(compiled)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None

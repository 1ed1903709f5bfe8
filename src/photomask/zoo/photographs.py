"""Real photographs in the form that ImageNet networks take, without a download.

The packages scikit-image and scikit-learn contain a few colour photographs (a portrait, a cat, a
cup of coffee, a rocket, motorcycles, a Chinese temple, a flower). Random crops of them are natural
enough to calibrate a network, and to compare a converted network with its original. They have no
labels. Only files in the installed packages are read.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from photomask.dependencies import OptionalPackage
from photomask.errors import DataError, MissingDependencyError, UsageError
from photomask.prompts import open_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""The mean of red, green and blue in ImageNet, in units of full scale (255)."""

IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
"""The standard deviation of red, green and blue in ImageNet, in units of full scale (255)."""

_PURPOSE = "photograph_crops"
_FILES = (
    ("scikit-image", "skimage", "data/astronaut.png"),
    ("scikit-image", "skimage", "data/chelsea.png"),
    ("scikit-image", "skimage", "data/coffee.png"),
    ("scikit-image", "skimage", "data/motorcycle_left.png"),
    ("scikit-image", "skimage", "data/rocket.jpg"),
    ("scikit-learn", "sklearn", "datasets/images/china.jpg"),
    ("scikit-learn", "sklearn", "datasets/images/flower.jpg"),
)
_AREA_FRACTION = (0.25, 1.0)
_ASPECT_RATIO = (3 / 4, 4 / 3)


def photograph_crops(count: int, *, size: int = 224, seed: int = 0) -> Tensor:
    """Returns random crops of the photographs in turn. Each is mirrored with probability 1/2.

    A crop covers 25 to 100 % of its photograph at an aspect ratio of 3:4 to 4:3. It is resized with
    antialiased bilinear interpolation. The same arguments give the same crops, and a smaller set is
    a prefix of a larger one. Another seed gives other crops, so calibration and test can use the
    seeds 0 and 1.

    Args:
        count: the number of crops, at least 1.
        size: the height and width of a crop, in pixels.
        seed: the seed of the random choices.

    Returns:
        ImageNet-normalised images, float32 [count, 3, size, size].

    Raises:
        UsageError: `count` or `size` is below 1.
        MissingDependencyError: scikit-image, scikit-learn or Pillow is not installed.
        DataError: an installed package does not contain its photograph.
    """
    if count < 1 or size < 1:
        raise UsageError(f"photograph_crops(count={count}, size={size}): both must be at least 1")
    photographs = _read_photographs()
    crops = np.empty((count, size, size, 3), np.uint8)
    for index, random in enumerate(_generators(count, seed)):
        crops[index] = _crop(photographs[index % len(photographs)], size, random)
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    mean = torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1)
    deviation = torch.tensor(IMAGENET_STANDARD_DEVIATION).reshape(3, 1, 1)
    return pixels.div_(255).sub_(mean).div_(deviation)


def _generators(count: int, seed: int) -> Iterator[np.random.Generator]:
    """Yields a random generator for each crop, which does not depend on the number of crops."""
    for index in range(count):
        yield np.random.default_rng((seed, index))


def _crop(photograph: Any, size: int, random: np.random.Generator) -> np.ndarray:
    """Returns one crop of a Pillow image, uint8 [size, size, 3]."""
    from PIL import Image

    area = photograph.width * photograph.height * random.uniform(*_AREA_FRACTION)
    aspect = np.exp(random.uniform(*np.log(_ASPECT_RATIO)))
    width = min(float(np.sqrt(area * aspect)), photograph.width)
    height = min(float(np.sqrt(area / aspect)), photograph.height)
    left = random.uniform(0, photograph.width - width)
    top = random.uniform(0, photograph.height - height)
    box = (left, top, min(left + width, photograph.width), min(top + height, photograph.height))
    crop = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return crop[:, ::-1] if random.random() < 0.5 else crop


def _read_photographs() -> list[Any]:
    """Returns the photographs as Pillow images in RGB, in a fixed order."""
    with OptionalPackage("pillow", "zoo", _PURPOSE):
        import PIL  # noqa: F401

    photographs = []
    for package, module, name in _FILES:
        specification = importlib.util.find_spec(module)
        if specification is None or specification.origin is None:
            raise MissingDependencyError(package, "zoo", _PURPOSE)
        path = Path(specification.origin).parent / name
        if not path.is_file():
            raise DataError(
                f"{path} is missing, because this version of {package} does not contain it; "
                "install another version"
            )
        photographs.append(open_image(path))
    return photographs

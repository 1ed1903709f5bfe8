"""Finds the attention layers of a model's text tower."""

from __future__ import annotations

from typing import Any

from torch import nn

from photomask.attention.families import family_of
from photomask.errors import UsageError


def text_tower(model: Any) -> nn.Module:
    """Returns the module that runs the text configuration of a vision-language model.

    Raises:
        UsageError: the model is of no supported family, or it has no separate module for text.
    """
    family = family_of(getattr(model, "config", None))
    config = model.config.get_text_config()
    for module in model.modules():
        if getattr(module, "config", None) is config and hasattr(module, "layers"):
            return module
    raise UsageError(
        f"{type(model).__name__} ({family.name}) has no module with the text configuration; give "
        "the model as transformers made it"
    )


def text_parts(model: Any) -> list[nn.Module]:
    """Returns the text tower of a model, and the modules between the model and the tower.

    Raises:
        UsageError: the model is of no supported family, or it has no separate module for text.
    """
    tower = text_tower(model)
    around = [module for module in model.modules() if module is not model]
    return [module for module in around if any(part is tower for part in module.modules())]


def attention_layers_in(module: nn.Module) -> list[nn.Module]:
    """Returns the attention modules of the text layers inside a module, as they stand there."""
    return [
        part
        for part in module.modules()
        if isinstance(getattr(part, "layer_idx", None), int) and hasattr(part, "o_proj")
    ]


def text_attention_layers(model: Any) -> list[nn.Module]:
    """Returns the attention modules of the text tower, ordered by `layer_idx`.

    Each has `q_proj`, `k_proj`, `v_proj`, `o_proj`, `head_dim` and `layer_idx`.

    Args:
        model: a vision-language model of a supported family, from transformers.

    Raises:
        UsageError: the model is of no supported family, or its layers are not 0, 1, 2, ….
    """
    found = attention_layers_in(text_tower(model))
    layers = {int(layer.layer_idx): layer for layer in found}  # pyright: ignore[reportArgumentType]
    expected = range(model.config.get_text_config().num_hidden_layers)
    if sorted(layers) != list(expected):
        raise UsageError(
            f"{type(model).__name__} has the text attention layers {sorted(layers)}, but its "
            f"configuration says that there are {len(expected)}; give the model as transformers "
            "made it"
        )
    return [layers[number] for number in expected]

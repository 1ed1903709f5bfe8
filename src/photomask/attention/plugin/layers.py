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


def text_attention_layers(model: Any) -> list[nn.Module]:
    """Returns the attention modules of the text tower, ordered by `layer_idx`.

    Each has `q_proj`, `k_proj`, `v_proj`, `o_proj`, `head_dim` and `layer_idx`.

    Args:
        model: a vision-language model of a supported family, from transformers.

    Raises:
        UsageError: the model is of no supported family, or its layers are not 0, 1, 2, ….
    """
    layers: dict[int, nn.Module] = {}
    for module in text_tower(model).modules():
        number = getattr(module, "layer_idx", None)
        if isinstance(number, int) and hasattr(module, "o_proj"):
            layers[number] = module
    expected = range(model.config.get_text_config().num_hidden_layers)
    if sorted(layers) != list(expected):
        raise UsageError(
            f"{type(model).__name__} has the text attention layers {sorted(layers)}, but its "
            f"configuration says that there are {len(expected)}; give the model as transformers "
            "made it"
        )
    return [layers[number] for number in expected]

"""Attaches a handler to the text attention of a model, and takes it off again."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from photomask.attention.plugin.calls import AttentionCall, AttentionHandler
from photomask.attention.plugin.dispatch import (
    Attachment,
    after_forward,
    attachment_of,
    before_forward,
    before_text,
)
from photomask.attention.plugin.layers import text_attention_layers, text_tower
from photomask.attention.plugin.masks import DENSE, NAME
from photomask.attention.plugin.registration import Hook, register
from photomask.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)


def attach(model: Model, handler: AttentionHandler) -> Model:
    """Returns a copy of a model whose text attention asks a handler where images are concerned.

    The copy shares every parameter and buffer with the model, which stays as it is and keeps
    working. What changes parameters in place (`to`, `half`, training) changes both; move the model
    first. The vision tower is not touched. Forwards without tokens of images, decoding above all,
    run the model's own attention with its own mask.

    Args:
        model: a vision-language model of a supported family, from transformers, with the attention
            implementation "sdpa".
        handler: see there; must be safe to call from as many threads as the model is.

    Raises:
        UsageError: the model is of no supported family, compiled, attached already, offloaded, or
            has another attention implementation.
    """
    _check_model(model)
    register()
    attached = copy.deepcopy(model, _shared_tensors(model))
    _switch(attached)
    Attachment(model, handler).keep_on(attached)
    attached.register_forward_pre_hook(Hook(before_forward), with_kwargs=True)
    attached.register_forward_hook(Hook(after_forward), with_kwargs=True, always_call=True)
    text_tower(attached).register_forward_pre_hook(Hook(before_text))
    return attached


def detach(model: Model) -> Model:
    """Returns the model that was given to `attach`.

    Raises:
        UsageError: the model does not come from `attach`.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise UsageError(f"this {type(model).__name__} was never converted; there is no original")
    return cast(Model, attachment.original)


def is_attached(model: Any) -> bool:
    """Says whether the text attention of a model asks a handler, as `attach` made it.

    Args:
        model: any object; a model compiled by torch.compile counts as what was compiled.
    """
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, nn.Module) or attachment_of(inner) is None:
        return False
    config: Any = inner.config
    return config.get_text_config()._attn_implementation == NAME


def last_calls(model: Any) -> tuple[AttentionHandler, dict[int, AttentionCall]]:
    """Returns the handler of a model, and what its layers last asked it for.

    Args:
        model: that `attach` returned, or the same compiled by torch.compile.

    Returns:
        The handler; and by number of the layer the call of the last forward that had tokens of
        images, empty before the first.

    Raises:
        UsageError: the model does not come from `attach`.
    """
    attachment = attachment_of(getattr(model, "_orig_mod", model))
    if attachment is None:
        raise UsageError(f"this {type(model).__name__} was never converted; it has no plan")
    return attachment.handler, attachment.last_calls


def _check_model(model: Any) -> None:
    """Raises unless a handler can be attached."""
    from transformers import PreTrainedModel

    if hasattr(model, "_orig_mod"):
        raise UsageError(
            "this model is compiled by torch.compile; convert it before you compile it"
        )
    if not isinstance(model, PreTrainedModel):
        raise UsageError(
            f"{type(model).__name__} is no model of transformers; adapters and wrappers are not "
            "supported, so merge them into the model first"
        )
    if any(attachment_of(module) is not None for module in model.modules()):
        raise UsageError("this model is converted already; unconvert it first")
    text_attention_layers(model)
    found = model.config.get_text_config()._attn_implementation
    if found != DENSE:
        raise UsageError(
            f"the text attention of this model is {found!r}; load it with "
            f"attn_implementation={DENSE!r}, which picks FlashAttention or cuDNN by itself"
        )
    if any(tensor.device.type == "meta" for tensor in _tensors(model)):
        raise UsageError("parts of this model are offloaded; load it onto devices as a whole")


def _tensors(model: nn.Module) -> list[Tensor]:
    """Every parameter, buffer and other tensor that a module of the model holds."""
    plain = [value for module in model.modules() for value in vars(module).values()]
    tensors = [value for value in plain if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *tensors]


def _shared_tensors(model: nn.Module) -> dict[int, Any]:
    """Tells `copy.deepcopy` to take the tensors as they are."""
    return {id(tensor): tensor for tensor in _tensors(model)}


def _switch(model: Any) -> None:
    """Switches the text configuration, and makes sure that nothing else changed."""
    names = [name for name in model.config.sub_configs if getattr(model.config, name, None)]
    parts = {name: getattr(model.config, name) for name in names}
    before = {name: part._attn_implementation for name, part in parts.items()}
    wanted = {**before, "text_config": NAME}
    model.set_attn_implementation(wanted)
    after = {name: part._attn_implementation for name, part in parts.items()}
    if after != wanted:
        raise UsageError(
            f"transformers set the attention implementations {after} instead of {wanted}"
        )

"""Attaches a handler to the text attention of a model, and detaches it again."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from photomask.attention.plugin.attached import Attachment, LastForward, attachment_of
from photomask.attention.plugin.calls import AttentionHandler
from photomask.attention.plugin.dispatch import after_forward, before_forward, before_part
from photomask.attention.plugin.layers import text_attention_layers, text_parts
from photomask.attention.plugin.masks import DENSE, NAME
from photomask.attention.plugin.registration import Hook, register
from photomask.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)


def attach(model: Model, handler: AttentionHandler) -> Model:
    """Returns a copy of a model whose text attention calls a handler in forwards with images.

    The copy shares every parameter and buffer with the model. The model stays as it is and keeps
    working. An operation that changes parameters in place (`to`, `half`, training) changes both
    models, so move the model first. The vision tower is not touched. Forwards without tokens of
    images, such as decoding, run the model's own attention with its own mask.

    Args:
        model: a vision-language model of a supported family, from transformers, with the attention
            implementation "sdpa".
        handler: the handler of the attention calls. If several threads run the model, they call the
            handler at the same time.

    Raises:
        UsageError: the model is of no supported family, it is compiled, already attached or
            offloaded, or it has another attention implementation.
    """
    _check_model(model)
    register()
    attached = copy.deepcopy(model, _shared_tensors(model))
    _switch(attached)
    parts = text_parts(attached)
    Attachment(model, handler).keep_on(attached, parts)
    for module, before in ((attached, before_forward), *((part, before_part) for part in parts)):
        module.register_forward_pre_hook(Hook(before), with_kwargs=True)
        module.register_forward_hook(Hook(after_forward), with_kwargs=True, always_call=True)
    return attached


def detach(model: Model) -> Model:
    """Returns the original model that was given to `attach`.

    Raises:
        UsageError: the model does not come from `attach`.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise UsageError(f"this {type(model).__name__} was never converted; there is no original")
    return cast(Model, attachment.original)


def is_attached(model: Any) -> bool:
    """Returns whether the text attention of a model calls a handler, as `attach` arranged it.

    Args:
        model: any object. For a model compiled by torch.compile, the answer is that of the model
            that was compiled.
    """
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, nn.Module) or attachment_of(inner) is None:
        return False
    config: Any = inner.config
    return config.get_text_config()._attn_implementation == NAME


def last_forward(model: Any) -> tuple[AttentionHandler, LastForward]:
    """Returns the handler of a model, and what its layers did in the last forward with images.

    Args:
        model: a model that `attach` returned; it may be compiled by torch.compile.

    Returns:
        The handler, and the last forward that had tokens of images. There are no calls in it before
        the first such forward.

    Raises:
        UsageError: the model does not come from `attach`.
    """
    attachment = attachment_of(getattr(model, "_orig_mod", model))
    if attachment is None:
        raise UsageError(f"this {type(model).__name__} was never converted; it has no plan")
    return attachment.handler, attachment.last


def _check_model(model: Any) -> None:
    """Raises UsageError unless a handler can be attached to the model."""
    from transformers import PreTrainedModel

    if hasattr(model, "_orig_mod"):
        raise UsageError(
            "this model is compiled by torch.compile; convert it before you compile it"
        )
    if not isinstance(model, PreTrainedModel):
        raise UsageError(
            f"{type(model).__name__} is no model of transformers; adapters and wrappers are not "
            "supported, so merge an adapter into the model, or give the model inside the wrapper"
        )
    if any(attachment_of(module) is not None for module in model.modules()):
        raise UsageError("this model is converted already; unconvert it first")
    text_attention_layers(model)
    found = model.config.get_text_config()._attn_implementation
    if found != DENSE:
        raise UsageError(
            f"the text attention of this model is {found!r}, but {DENSE!r} was expected; load it "
            f"with attn_implementation={DENSE!r}, which chooses FlashAttention or cuDNN by itself"
        )
    if any(tensor.device.type == "meta" for tensor in _tensors(model)):
        raise UsageError("parts of this model are offloaded; load it onto devices as a whole")


def _tensors(model: nn.Module) -> list[Tensor]:
    """Returns every parameter, buffer and other tensor that a module of the model holds."""
    plain = [value for module in model.modules() for value in vars(module).values()]
    tensors = [value for value in plain if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *tensors]


def _shared_tensors(model: nn.Module) -> dict[int, Any]:
    """Returns a memo that makes `copy.deepcopy` share the tensors instead of copying them."""
    return {id(tensor): tensor for tensor in _tensors(model)}


def _switch(model: Any) -> None:
    """Switches the attention of the text configuration, and checks that nothing else changed.

    Raises:
        UsageError: transformers changed another configuration too, or did not change this one.
    """
    names = [name for name in model.config.sub_configs if getattr(model.config, name, None)]
    parts = {name: getattr(model.config, name) for name in names}
    before = {name: part._attn_implementation for name, part in parts.items()}
    wanted = {**before, "text_config": NAME}
    model.set_attn_implementation(wanted)
    after = {name: part._attn_implementation for name, part in parts.items()}
    if after != wanted:
        raise UsageError(
            f"transformers set the attention implementations {after} instead of {wanted}; this "
            "version of transformers or this model is not supported"
        )

"""The hooks around a forward, and the attention function that its layers call."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from photomask.attention.plugin.attached import (
    Attachment,
    LastForward,
    attachment_around,
    attachment_of,
)
from photomask.attention.plugin.caches import cache_in
from photomask.attention.plugin.calls import AttentionRequest
from photomask.attention.plugin.forwards import FORWARD, Forward
from photomask.attention.plugin.layers import attention_layers_in
from photomask.attention.plugin.masks import DENSE, NAME, PromptMask
from photomask.attention.plugin.own_layouts import own_layout
from photomask.errors import LayoutError, PlanError, UsageError

_UNSUPPORTED = ("s_aux", "softcap", "position_bias", "head_mask")


def before_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Reads the arguments of a forward before the model runs.

    Raises:
        UsageError: the model lost its attachment, its attention was switched, or attention weights
            are asked for.
        LayoutError: there are no token ids and no layout, the images cannot be told apart, or a
            given layout does not fit.
    """
    attachment = attachment_of(module)
    if attachment is None:
        raise UsageError(
            f"this {type(module).__name__} lost the record of its conversion; convert the "
            "original model again"
        )
    _begin(module, attachment, module.config, args, kwargs)


def before_part(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Reads the arguments of a part of the model that is called by itself, with a given layout.

    Raises:
        UsageError: the attention of the text tower was switched, or attention weights are asked
            for.
        LayoutError: the given layout does not fit.
    """
    _check_switched(module)
    attachment = attachment_around(module)
    forward = FORWARD.get()
    within = forward is not None and forward.attachment is attachment
    if attachment is None or within or own_layout(attachment) is None:
        return  # `answer` refuses layers that run in no forward
    _begin(module, attachment, attachment.original.config, args, kwargs)


def _begin(
    module: Any,
    attachment: Attachment,
    config: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Begins the forward of a model or of its part.

    Args:
        module: the model or the part.
        attachment: what the model keeps.
        config: the configuration of the whole model.
        args: the arguments by position.
        kwargs: the arguments by name.
    """
    arguments = kwargs
    if args:
        bound = inspect.signature(type(module).forward).bind_partial(module, *args)
        arguments = {**bound.arguments, **kwargs}
    forward = Forward(module, attachment, config, arguments)
    if forward.has_images:
        for layer in attention_layers_in(module):
            _check_switched(layer)
    wanted = arguments.get("output_attentions", getattr(module.config, "output_attentions", False))
    if forward.has_images and wanted:
        raise UsageError(
            "output_attentions=True asks for the weight of every pair, but a plan does not compute "
            "every pair; run the original model, as unconvert returns it"
        )
    forward.token = FORWARD.set(forward)


def after_forward(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> None:
    """Ends a forward, also after a failure, and records which tokens the cache holds now.

    Raises:
        UsageError: a layer did not run the attention of the plan.
    """
    del args, kwargs
    forward = FORWARD.get()
    if forward is None or forward.module is not module or forward.token is None:
        return
    FORWARD.reset(forward.token)
    if output is None:  # the forward failed
        return
    if forward.has_images:
        _check_answered(forward)
        calls = {layer: call.without_schedules() for layer, call in forward.calls.items()}
        forward.attachment.last = LastForward(calls, forward.kernels)
    forward.remember(cache_in(output))


def _check_switched(module: nn.Module) -> None:
    """Raises UsageError unless the text configuration of a module names the plug-in's attention."""
    config: Any = module.config
    found = getattr(config.get_text_config(), "_attn_implementation", None)
    if found != NAME:
        raise UsageError(
            f"the attention of this converted model was switched to {found!r}, which ignores the "
            "plan; run the original, as unconvert returns it, or switch the text configuration "
            f"back: model.set_attn_implementation({{'text_config': {NAME!r}}})"
        )


def _check_answered(forward: Forward) -> None:
    """Raises UsageError unless every layer of the text tower ran the plug-in's attention."""
    layers = range(forward.module.config.get_text_config().num_hidden_layers)
    missing = sorted(set(layers) - set(forward.calls))
    if missing:
        raise UsageError(
            f"text layers {missing} of this converted model ran another attention than the plan's; "
            "do not replace their configuration or their forward, or convert the model again"
        )


def answer(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Computes the attention of a text layer. Every text layer of an attached model calls it.

    Args:
        module: the attention layer.
        query: the queries, [B, H, Q, D].
        key: the keys, [B, G, K, D].
        value: the values, [B, G, K, D].
        attention_mask: a `PromptMask`, unless the user gave a mask of four dimensions.
        scaling: the factor of the scores; None means `D ** -0.5`.
        dropout: the probability of dropout.
        kwargs: the other arguments that the layer passes.

    Returns:
        The output, [B, Q, H, D], and None in place of the weights.

    Raises:
        UsageError: the layer runs outside a forward of the attached model, or it is in training.
        PlanError: the layer asks for something that a plan cannot honour.
        LayoutError: the layer has fewer keys than the mask says, or the layout cannot be derived.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    forward = FORWARD.get()
    if forward is None:
        raise UsageError(
            "a text layer of a converted model runs outside a forward of that model; call the "
            "object that the conversion returned, not a part of it, unless prompt_layout says what "
            "the tokens are, and do not use gradient checkpointing"
        )

    casts = torch.is_autocast_enabled(query.device.type)

    def dense() -> Tensor:  # [B, Q, H, D]
        mask = attention_mask.own() if isinstance(attention_mask, PromptMask) else attention_mask
        extra = {"dropout": dropout, "scaling": scaling, **kwargs}
        with torch.autocast(query.device.type, enabled=casts):
            return ALL_ATTENTION_FUNCTIONS[DENSE](module, query, key, value, mask, **extra)[0]

    ran: list[str] = []

    def swapped() -> Tensor:
        ran.append(DENSE)
        return dense().transpose(1, 2)

    if not forward.has_images:
        return dense(), None
    _check_supported(attention_mask, dropout, kwargs, (query, key, value))
    call = attention_mask.call(forward, query.device)
    tokens = call.layout.tokens
    if key.shape[2] < tokens:
        raise LayoutError(
            f"layer {module.layer_idx} has {key.shape[2]} keys, but its mask counts {tokens} "
            "tokens; this cache is not supported"
        )
    cast = _autocast(query, key[:, :, :tokens], value[:, :, :tokens])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    forward.calls[layer] = call
    with torch.autocast(query.device.type, enabled=False):
        request = AttentionRequest(layer, module, *cast, scale, call, swapped, ran)
        output = forward.attachment.handler(request)
    forward.kernels[layer] = tuple(ran)
    return output.transpose(1, 2).contiguous(), None


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Casts query, key and value as autocast would, if autocast is on."""
    device = query.device.type
    if not torch.is_autocast_enabled(device):
        return query, key, value
    dtype = torch.get_autocast_dtype(device)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _check_supported(
    attention_mask: Any, dropout: float, kwargs: dict[str, Any], tensors: tuple[Tensor, ...]
) -> None:
    """Raises an error for requests that a plan cannot honour. A handler never sees them.

    Raises:
        PlanError: the mask or an argument has an effect that a plan cannot express.
        UsageError: the model is in training.
    """
    if not isinstance(attention_mask, PromptMask):
        raise PlanError(
            f"this forward has images and a mask of its own ({type(attention_mask).__name__}), "
            "which a plan cannot express; give an attention_mask of the shape [prompts, tokens]"
        )
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise PlanError(f"a plan cannot honour {name!r}, which this model gives its attention")
    if kwargs.get("is_causal") is False:
        raise PlanError("a plan needs causal attention, and this model asks for the opposite")
    if dropout:
        raise UsageError(
            f"attention dropout {dropout} of a model in training is not supported; call "
            "model.eval()"
        )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UsageError(
            "sparse prefill has no gradient; run the model under torch.inference_mode() or "
            "torch.no_grad(), and train the original"
        )

"""The hooks around a forward, and the attention function between them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from photomask.attention.plugin.caches import cache_in
from photomask.attention.plugin.calls import AttentionCall, AttentionHandler, AttentionRequest
from photomask.attention.plugin.forwards import FORWARD, Forward
from photomask.attention.plugin.layers import text_attention_layers
from photomask.attention.plugin.masks import DENSE, NAME, PromptMask
from photomask.errors import LayoutError, PlanError, UsageError

_ATTRIBUTE = "_photomask_attachment"
_UNSUPPORTED = ("s_aux", "softcap", "position_bias", "head_mask")


class Attachment:
    """What an attached model keeps: the original, and who answers its attention calls.

    Attributes:
        last_calls: what the layers asked for in the last forward with tokens of images, by number
            of the layer; empty before the first.
    """

    def __init__(self, original: nn.Module, handler: AttentionHandler):
        """Keeps both.

        Args:
            original: as it was given.
            handler: of the attention calls.
        """
        self.original = original
        self.handler = handler
        self.last_calls: dict[int, AttentionCall] = {}

    def keep_on(self, module: nn.Module) -> None:
        """Leaves this on a module, where it is no submodule."""
        module.__dict__[_ATTRIBUTE] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """A copy of an attached model is attached too, and has the same original."""
        del memo
        return Attachment(self.original, self.handler)


def attachment_of(module: nn.Module) -> Attachment | None:
    """Returns what `attach` left on a module."""
    return module.__dict__.get(_ATTRIBUTE)


def before_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Learns the token ids before the model runs."""
    attachment = attachment_of(module)
    if attachment is None:
        raise UsageError(f"this {type(module).__name__} lost what its conversion left on it")
    arguments = kwargs
    if args:
        bound = inspect.signature(type(module).forward).bind_partial(module, *args)
        arguments = {**bound.arguments, **kwargs}
    forward = Forward(module, attachment.handler, arguments)
    if forward.has_images:
        for layer in text_attention_layers(module):
            _check_switched(layer)
    wanted = arguments.get("output_attentions", getattr(module.config, "output_attentions", False))
    if forward.has_images and wanted:
        raise UsageError(
            "output_attentions=True asks for the weight of every pair, which a plan never "
            "computes; ask the original model"
        )
    forward.token = FORWARD.set(forward)


def after_forward(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> None:
    """Records which tokens the cache holds now, and forgets the forward, failed or not."""
    del args, kwargs
    forward = FORWARD.get()
    if forward is None or forward.module is not module or forward.token is None:
        return
    FORWARD.reset(forward.token)
    if output is None:  # it failed
        return
    if forward.has_images:
        _check_answered(forward)
        calls = {layer: call.without_schedules() for layer, call in forward.calls.items()}
        attachment_of(module).last_calls = calls  # pyright: ignore[reportOptionalMemberAccess]
    forward.remember(cache_in(output))


def before_text(module: nn.Module, args: tuple[Any, ...]) -> None:
    """Refuses to run the text tower of an attached model by another attention."""
    del args
    _check_switched(module)


def _check_switched(module: nn.Module) -> None:
    """Raises unless the configuration of a tower or layer names the attention of the plug-in."""
    found = getattr(module.config, "_attn_implementation", None)
    if found != NAME:
        raise UsageError(
            f"the attention of this converted model was switched to {found!r}, which knows no "
            "plan; run the original, as unconvert returns it, or switch the text configuration "
            f"back: model.set_attn_implementation({{'text_config': {NAME!r}}})"
        )


def _check_answered(forward: Forward) -> None:
    """Raises unless every layer of the text tower went by the plan."""
    layers = range(forward.module.config.get_text_config().num_hidden_layers)
    missing = sorted(set(layers) - set(forward.calls))
    if missing:
        raise UsageError(
            f"text layers {missing} of this converted model ran another attention than the plan's; "
            "do not exchange their configuration or their forward, or convert the model anew"
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
    """The attention function that every text layer calls.

    Args:
        module: the attention layer.
        query: [B, H, Q, D].
        key: [B, G, K, D].
        value: [B, G, K, D].
        attention_mask: a `PromptMask`, unless the user gave a mask of four dimensions.
        scaling: factor of the scores; None for `D ** -0.5`.
        dropout: probability.
        kwargs: what else the layer passes on.

    Returns:
        [B, Q, H, D], and None for the weights.

    Raises:
        UsageError: the layer runs outside a forward of the attached model, or is to be trained.
        PlanError: a plan cannot honour what the layer asks for.
        LayoutError: the layer has fewer keys than the mask says.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    forward = FORWARD.get()
    if forward is None:
        raise UsageError(
            "a text layer of a converted model runs outside a forward of that model; call the "
            "object that the conversion returned, not a part of it, and do not use gradient "
            "checkpointing"
        )

    casts = torch.is_autocast_enabled(query.device.type)

    def dense() -> Tensor:  # [B, Q, H, D]
        mask = attention_mask.own() if isinstance(attention_mask, PromptMask) else attention_mask
        extra = {"dropout": dropout, "scaling": scaling, **kwargs}
        with torch.autocast(query.device.type, enabled=casts):
            return ALL_ATTENTION_FUNCTIONS[DENSE](module, query, key, value, mask, **extra)[0]

    def swapped() -> Tensor:
        return dense().transpose(1, 2)

    if not forward.has_images:
        return dense(), None
    _check_supported(attention_mask, dropout, kwargs, (query, key, value))
    call = attention_mask.call(forward, query.device)
    tokens = call.layout.tokens
    if key.shape[2] < tokens:
        raise LayoutError(
            f"layer {module.layer_idx} has {key.shape[2]} keys, but its mask counts {tokens} tokens"
        )
    cast = _autocast(query, key[:, :, :tokens], value[:, :, :tokens])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    forward.calls[layer] = call
    with torch.autocast(query.device.type, enabled=False):
        output = forward.handler(AttentionRequest(layer, module, *cast, scale, call, swapped))
    return output.transpose(1, 2).contiguous(), None


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Casts as autocast, where it is on, casts what the model's own attention gets."""
    device = query.device.type
    if not torch.is_autocast_enabled(device):
        return query, key, value
    dtype = torch.get_autocast_dtype(device)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _check_supported(
    attention_mask: Any, dropout: float, kwargs: dict[str, Any], tensors: tuple[Tensor, ...]
) -> None:
    """Raises for what a plan cannot honour; a handler never sees it."""
    if not isinstance(attention_mask, PromptMask):
        raise PlanError(
            f"this forward has images, and a mask of its own ({type(attention_mask).__name__}) "
            "instead of one [prompts, tokens]; what such a mask means, a plan cannot know"
        )
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise PlanError(f"a plan cannot honour {name!r}, which this model gives its attention")
    if kwargs.get("is_causal") is False:
        raise PlanError("a plan needs causal attention, and this model asks for the opposite")
    if dropout:
        raise UsageError(f"attention dropout {dropout} of a model in training; call model.eval()")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UsageError(
            "sparse prefill has no gradient; run the model under torch.inference_mode() or "
            "torch.no_grad(), and train the original"
        )

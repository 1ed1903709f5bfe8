"""Makes a model run by a plan: same weights, sparse prefill where images are, dense elsewhere."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import Executor, LayerHeads, check_executor, prefill_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionRequest, attach, detach

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, plan: HeadPlan, *, executor: Executor = "auto") -> Model:
    """Returns a copy of a model that prefills images by a plan.

    Parameters and buffers are the model's own, and the model itself stays as it is. Only rows of
    image tokens become sparse, as the plan says for each head; text and decoding stay dense, by the
    model's own attention. Batches, padding, `generate`, chunked prefill and continued conversations
    work; `torch.compile` leaves the attention outside its graphs. A cache may be cropped, reset and
    reordered between forwards; images behind tokens that something else wrote into it are refused.

    Args:
        model: a vision-language model of a supported family, from transformers, on its device, with
            `attn_implementation="sdpa"`. What later changes its parameters in place changes both.
        plan: decided for this model.
        executor: who computes sparse layers: `auto`, the fastest on the model's device; `triton`,
            one kernel for all heads; `torch`, plain PyTorch, which on a GPU is slow.

    Raises:
        PlanError: the plan is of another model.
        UsageError: the model cannot be converted, or there is no such executor; says why. That a
            device is too old for the kernels is said by the first forward.
    """
    check_executor(executor)
    plan.check(model)
    return attach(model, PlanHandler(plan, executor))


def unconvert(model: Model) -> Model:
    """Returns the model that was given to `convert`.

    Raises:
        UsageError: the model was never converted.
    """
    return detach(model)


class PlanHandler:
    """Answers attention calls by a plan; a handler of the plug-in."""

    def __init__(self, plan: HeadPlan, executor: Executor = "auto"):
        self._plan = plan
        self._executor: Executor = executor
        self._heads: dict[tuple[int, torch.device], LayerHeads] = {}

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs the patterns of a layer; the model's own attention if all its heads are dense."""
        if all(pattern is Pattern.DENSE for pattern in self._plan.patterns[request.layer]):
            return request.dense()
        return prefill_attention(
            request.query,
            request.key,
            request.value,
            request.call.schedule(self._plan.sinks),
            self._heads_of(request),
            request.scale,
            executor=self._executor,
        )

    def _heads_of(self, request: AttentionRequest) -> LayerHeads:
        """Returns the heads of a layer on its device."""
        layer, device = request.layer, request.query.device
        if (layer, device) not in self._heads:
            patterns, key_heads = self._plan.patterns[layer], request.key.shape[1]
            self._heads[layer, device] = LayerHeads.of(patterns, key_heads, device)
        return self._heads[layer, device]

"""Makes a model run by a plan: same weights, sparse prefill where images are, dense elsewhere."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import prefill_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionRequest, attach, detach

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, plan: HeadPlan) -> Model:
    """Returns a copy of a model that prefills images by a plan.

    Parameters and buffers are the model's own, and the model itself stays as it is. Only rows of
    image tokens become sparse, as the plan says for each head; text and decoding stay dense, by the
    model's own attention. Batches, padding, `generate`, chunked prefill and continued conversations
    work; `torch.compile` leaves the attention outside its graphs. The rows of a cache must not be
    exchanged between prompts by hand.

    Args:
        model: a vision-language model of a supported family, from transformers, on its device, with
            `attn_implementation="sdpa"`. What later changes its parameters in place changes both.
        plan: decided for this model.

    Raises:
        PlanError: the plan is of another model.
        UsageError: the model cannot be converted; says why.
    """
    plan.check(model)
    return attach(model, PlanHandler(plan))


def unconvert(model: Model) -> Model:
    """Returns the model that was given to `convert`.

    Raises:
        UsageError: the model was never converted.
    """
    return detach(model)


class PlanHandler:
    """Answers attention calls by a plan; a handler of the plug-in."""

    def __init__(self, plan: HeadPlan):
        self._plan = plan
        self._codes: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs the patterns of a layer; the model's own attention if all its heads are dense."""
        query, layer = request.query, request.layer
        if all(pattern is Pattern.DENSE for pattern in self._plan.patterns[layer]):
            return request.dense()
        schedule = request.call.schedule(self._plan.sinks)
        patterns = self._patterns(layer, query.device)
        return prefill_attention(
            query, request.key, request.value, schedule, patterns, request.scale
        )

    def _patterns(self, layer: int, device: torch.device) -> Tensor:
        """Returns the codes of a layer's heads on a device, int8 [H]."""
        if (layer, device) not in self._codes:
            codes = [int(pattern) for pattern in self._plan.patterns[layer]]
            self._codes[layer, device] = torch.tensor(codes, dtype=torch.int8, device=device)
        return self._codes[layer, device]

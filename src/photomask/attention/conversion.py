"""Makes a model run by a plan: same weights, sparse prefill where images are, dense elsewhere."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import Executor, LayerHeads, check_executor, prefill_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import (
    AttentionCall,
    AttentionRequest,
    attach,
    detach,
    is_attached,
    last_calls,
)
from photomask.attention.visible_pairs import visible_pairs
from photomask.errors import UsageError
from photomask.stages import stage

Model = TypeVar("Model", bound=nn.Module)


@stage(__name__, "convert")
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


def is_sparse(model: object) -> bool:
    """Says whether a model prefills images by a plan: whether `convert` returned it.

    False for the original, for any other object, and for a converted model whose attention
    implementation was switched since; such a model refuses to run.

    Args:
        model: a model, also one compiled by torch.compile.
    """
    return is_attached(model)


def last_density(model: nn.Module) -> float | None:
    """Returns how much of the attention the last prefill with images computed.

    Visible over causal pairs of query and key, over all layers, heads and prompts of the last
    forward that had tokens of images; 1.0 is dense. Where a prompt arrives in chunks, it is that of
    the last chunk with tokens of images.

    Args:
        model: that `convert` returned, or the same compiled by torch.compile.

    Returns:
        Between 0 and 1; None before the first prefill with images.

    Raises:
        UsageError: the model was never converted.
    """
    handler, calls = last_calls(model)
    if not isinstance(handler, PlanHandler):
        raise UsageError(f"this model runs a {type(handler).__name__}, which has no plan")
    counter = PairCounter(handler.plan)
    for layer, call in sorted(calls.items()):
        counter.add(layer, call)
    return counter.density


class PairCounter:
    """Counts the query-key pairs that the heads of a plan see.

    Attributes:
        visible: pairs seen, over all layers, heads and prompts so far.
        causal: pairs that dense heads would see.
    """

    def __init__(self, plan: HeadPlan):
        self._plan = plan
        self.visible = 0
        self.causal = 0
        self._last: tuple[AttentionCall, dict[Pattern, int]] | None = None

    def add(self, layer: int, call: AttentionCall) -> None:
        """Counts the pairs of a layer's call."""
        pairs = self._pairs(call)
        patterns = self._plan.patterns[layer]
        self.visible += sum(pairs[pattern] for pattern in patterns)
        self.causal += pairs[Pattern.DENSE] * len(patterns)

    @property
    def density(self) -> float | None:
        """Visible over causal pairs; None where nothing was counted."""
        return self.visible / self.causal if self.causal else None

    def _pairs(self, call: AttentionCall) -> dict[Pattern, int]:
        """Counts once for all layers in turn that share a call."""
        if self._last is None or self._last[0] is not call:
            seen = {
                pattern: visible_pairs(
                    call.layout, pattern, self._plan.sinks, call.rule, call.query_start
                )
                for pattern in Pattern
            }
            self._last = (call, {pattern: int(pairs.sum()) for pattern, pairs in seen.items()})
        return self._last[1]


class PlanHandler:
    """Answers attention calls by a plan; a handler of the plug-in.

    Attributes:
        plan: what runs.
    """

    def __init__(self, plan: HeadPlan, executor: Executor = "auto"):
        self.plan = plan
        self._executor: Executor = executor
        self._heads: dict[tuple[int, torch.device], LayerHeads] = {}

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs the patterns of a layer; the model's own attention if all its heads are dense."""
        if all(pattern is Pattern.DENSE for pattern in self.plan.patterns[request.layer]):
            return request.dense()
        return prefill_attention(
            request.query,
            request.key,
            request.value,
            request.call.schedule(self.plan.sinks),
            self._heads_of(request),
            request.scale,
            executor=self._executor,
        )

    def _heads_of(self, request: AttentionRequest) -> LayerHeads:
        """Returns the heads of a layer on its device."""
        layer, device = request.layer, request.query.device
        if (layer, device) not in self._heads:
            patterns, key_heads = self.plan.patterns[layer], request.key.shape[1]
            self._heads[layer, device] = LayerHeads.of(patterns, key_heads, device)
        return self._heads[layer, device]

"""Converts a model, so that its prefill is sparse on images as a plan says."""

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
    """Returns a copy of a model that prefills images as a plan says.

    The copy shares its parameters and buffers with the model, and the model stays as it is. Only
    the rows of image tokens become sparse, each head by its pattern. Text rows see what they see in
    the dense model. Decoding runs the model's own attention.

    Batches, padding, `generate`, chunked prefill and continued conversations work. `torch.compile`
    leaves the attention outside its graphs. A cache may be cropped, reset and reordered between
    forwards. A forward with images is refused if something else wrote tokens into its cache.

    Args:
        model: a vision-language model of a supported family, from transformers, on its device, with
            `attn_implementation="sdpa"`. A later change of its parameters in place changes both
            models.
        plan: a plan that was decided for this model.
        executor: what computes the sparse layers. `auto` is the fastest on the model's device,
            `triton` is one kernel for all heads, and `torch` is plain PyTorch, which is slow on a
            GPU.

    Raises:
        PlanError: the plan belongs to another model.
        UsageError: the model cannot be converted, or there is no such executor. If the device is
            too old for the kernels, the first forward raises the error.
    """
    check_executor(executor)
    plan.check(model)
    return attach(model, PlanHandler(plan, executor))


def unconvert(model: Model) -> Model:
    """Returns the original model that was given to `convert`.

    Raises:
        UsageError: the model was never converted.
    """
    return detach(model)


def is_sparse(model: object) -> bool:
    """Returns whether a model prefills images by a plan, that is, whether `convert` returned it.

    The result is False for the original and for any other object. It is also False for a converted
    model whose attention implementation was switched later; such a model refuses to run.

    Args:
        model: a model, which may be compiled by torch.compile.
    """
    return is_attached(model)


def last_density(model: nn.Module) -> float | None:
    """Returns the share of the attention that the last prefill with images computed.

    It is the number of visible pairs of query and key over the number of causal pairs. The pairs
    are summed over all layers, heads and prompts of the last forward that had tokens of images. If
    a prompt arrives in chunks, that forward is the last chunk with tokens of images.

    Args:
        model: a model that `convert` returned; it may be compiled by torch.compile.

    Returns:
        A number between 0 and 1, where 1 is dense; None before the first prefill with images.

    Raises:
        UsageError: the model was never converted.
    """
    handler, calls = last_calls(model)
    if not isinstance(handler, PlanHandler):
        raise UsageError(
            f"this model runs a {type(handler).__name__}, which has no plan; expected a model that "
            "photomask.attention.convert returned"
        )
    counter = PairCounter(handler.plan)
    for layer, call in sorted(calls.items()):
        counter.add(layer, call)
    return counter.density


class PairCounter:
    """Counts the pairs of query and key that the heads of a plan see.

    Attributes:
        visible: the pairs that the heads saw, over all layers, heads and prompts so far.
        causal: the pairs that dense heads would have seen.
    """

    def __init__(self, plan: HeadPlan):
        self._plan = plan
        self.visible = 0
        self.causal = 0
        self._last: tuple[AttentionCall, dict[Pattern, int]] | None = None

    def add(self, layer: int, call: AttentionCall) -> None:
        """Adds the pairs of one call of a layer."""
        pairs = self._pairs(call)
        patterns = self._plan.patterns[layer]
        self.visible += sum(pairs[pattern] for pattern in patterns)
        self.causal += pairs[Pattern.DENSE] * len(patterns)

    @property
    def density(self) -> float | None:
        """The visible pairs over the causal pairs; None if nothing was counted."""
        return self.visible / self.causal if self.causal else None

    def _pairs(self, call: AttentionCall) -> dict[Pattern, int]:
        """Returns the pairs of each pattern, counted once for consecutive layers with one call."""
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
    """Computes attention as a plan says. It is a handler of the plug-in.

    Attributes:
        plan: the plan.
    """

    def __init__(self, plan: HeadPlan, executor: Executor = "auto"):
        self.plan = plan
        self._executor: Executor = executor
        self._heads: dict[tuple[int, torch.device], LayerHeads] = {}

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs the patterns of a layer, or the model's own attention if all heads are dense."""
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
        """Returns the heads of a layer on the device of the request."""
        layer, device = request.layer, request.query.device
        if (layer, device) not in self._heads:
            patterns, key_heads = self.plan.patterns[layer], request.key.shape[1]
            self._heads[layer, device] = LayerHeads.of(patterns, key_heads, device)
        return self._heads[layer, device]

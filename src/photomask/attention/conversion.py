"""Converts a model, so that its prefill is sparse on images as a plan says."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from photomask.attention.head_plan import HeadPlan
from photomask.attention.kernels import Executor, LayerHeads, check_executor, prefill_attention
from photomask.attention.patterns import Pattern
from photomask.attention.plugin import AttentionRequest, attach, detach, is_attached
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
            ran=request.ran,
        )

    def _heads_of(self, request: AttentionRequest) -> LayerHeads:
        """Returns the heads of a layer on the device of the request."""
        layer, device = request.layer, request.query.device
        if (layer, device) not in self._heads:
            patterns, key_heads = self.plan.patterns[layer], request.key.shape[1]
            self._heads[layer, device] = LayerHeads.of(patterns, key_heads, device)
        return self._heads[layer, device]

"""Who prefills a long prompt: dense attention by two kernels, and plans.

All are the same model of transformers with the same tensors. They differ in the attention function
of the text layers, and in nothing else.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ours import RedGateError
from photomask.attention import HeadPlan, Pattern, convert
from photomask.attention.plugin import NAME, AttentionRequest, attach
from photomask.attention.verification.proof import LiteralHandler
from random_qwen import HEADS, LongPrompt

PATTERNS = (Pattern.DENSE, Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK)
PLANS = {  # percent of the heads that are dense: heads of each pattern in every layer
    10: (3, 7, 8, 10),
    30: (9, 5, 6, 8),
    50: (14, 4, 4, 6),
}
PEER = "dense_fa4"
"""What transformers knows FlashAttention-4 by; a name with "flash" in it takes another path."""
LARGEST_NOISE = 0.1
"""Relative error of the logits that rounding may make; with 28 layers it makes 0.045."""
NOISE_FACTOR = 2
"""How many times the error of dense attention others may have."""
EFFECT_FACTOR = 3
"""How many times its error a plan must move the logits, for the comparison to prove something."""
SAME = 1e-3
"""Relative error where the same kernel runs twice."""


@dataclass(frozen=True)
class Contender:
    """A model that prefills.

    Attributes:
        name: in the rows.
        model: of transformers.
        attention: what transformers knows its attention function by.
        package: the distribution whose version the rows state.
        context: around a forward.
    """

    name: str
    model: Any
    attention: str
    package: str = "photomask"
    context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    @torch.inference_mode()
    def prefill(self, prompt: LongPrompt) -> Tensor:
        """Embeds, runs all layers, fills a cache, and returns the last token's logits."""
        embedded = self.model.get_input_embeddings()(prompt.ids)
        embedded[0, prompt.places] = prompt.features
        with self.context():
            output = self.model(
                input_ids=prompt.ids,
                inputs_embeds=embedded,
                position_ids=prompt.positions,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[0, -1]


def dense_contender(model: Any) -> Contender:
    """Returns dense attention as PyTorch has it: on a GPU by cuDNN, and by nothing else."""
    if model.device.type != "cuda":
        return Contender("dense (SDPA)", model, "sdpa", "torch")

    def by_cudnn() -> AbstractContextManager[object]:
        return sdpa_kernel(SDPBackend.CUDNN_ATTENTION)

    return Contender("cuDNN dense (SDPA)", model, "sdpa", "torch", by_cudnn)


def peer_contender(model: Any) -> Contender:
    """Returns dense attention by FlashAttention-4.

    Raises:
        ImportError: it is not installed.
    """
    from flash_attn.cute import flash_attn_func
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Causal; all tensors [B, heads, tokens, features], the output [B, tokens, ...]."""
        del module, attention_mask, kwargs
        swapped = (tensor.transpose(1, 2) for tensor in (query, key, value))
        output = flash_attn_func(*swapped, softmax_scale=scaling, causal=True)
        return output[0] if isinstance(output, tuple) else output, None

    AttentionInterface.register(PEER, attention)
    AttentionMaskInterface.register(PEER, lambda **arguments: None)
    tensors = [*model.parameters(), *model.buffers()]
    other = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    other.set_attn_implementation({"text_config": PEER, "vision_config": "sdpa"})
    if other.config.text_config._attn_implementation != PEER:
        raise RedGateError("transformers did not take FlashAttention-4")
    return Contender("FlashAttention-4 dense", other, PEER, "flash-attn-4")


def plan_contender(model: Any, plan: HeadPlan, name: str) -> Contender:
    """Returns a plan at work."""
    return Contender(f"photomask, {name}", convert(model, plan), NAME)


def spread(dense: HeadPlan, counts: Sequence[int]) -> HeadPlan:
    """Makes a plan by hand that spreads patterns over the heads of each layer, always alike.

    Args:
        dense: any plan of the model.
        counts: how many heads have each of `PATTERNS`.
    """
    patterns = [each for each, count in zip(PATTERNS, counts, strict=True) for _ in range(count)]
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(dense.model.layers):
        order = torch.randperm(HEADS, generator=generator).tolist()
        layers.append([patterns[place] for place in order])
    return dense.with_patterns(layers)


class LiteralFloat32:
    """A handler that writes masks out and computes in float32."""

    def __init__(self, plan: HeadPlan):
        self._run = LiteralHandler(plan)

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Runs one layer."""
        tensors = {name: getattr(request, name) for name in ("query", "key", "value")}
        wide = {name: tensor.float() for name, tensor in tensors.items()}
        return self._run(dataclasses.replace(request, **wide)).to(request.query.dtype)


def distance(found: Tensor, expected: Tensor) -> float:
    """Returns the relative error of logits."""
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())


def in_float32(model: Any, plan: HeadPlan, prompt: LongPrompt) -> Tensor:
    """Returns the logits that a plan means, by masks written out and attention in float32."""
    return Contender("reference", attach(model, LiteralFloat32(plan)), NAME).prefill(prompt)


def require_near(what: str, found: Tensor, expected: Tensor, limit: float) -> float:
    """Returns the relative error of logits.

    Raises:
        RedGateError: it is above the limit.
    """
    error = distance(found, expected)
    if not error <= limit:
        raise RedGateError(f"{what}: relative error of the logits {error:.1e}, limit {limit:.1e}")
    return error


def require_dense(model: Any, dense: Contender, prompt: LongPrompt) -> None:
    """Holds that an all-dense plan is the dense model.

    Raises:
        RedGateError: the first token or the logits differ.
    """
    plan = HeadPlan.uniform(model, Pattern.DENSE)
    converted = plan_contender(model, plan, "all dense")
    found = dataclasses.replace(converted, context=dense.context).prefill(prompt)
    expected = dense.prefill(prompt)
    if int(found.argmax()) != int(expected.argmax()):
        raise RedGateError("an all-dense plan answers with another token than the dense model")
    require_near("all-dense plan beside the dense model", found, expected, SAME)

"""How much a model's answer depends on one layer's sparse heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from photomask.attention.kernels import LayerHeads, prefill_attention
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plugin import AttentionRequest, attach

PROBED = Pattern.SINK
"""The pattern that all heads of a probed layer get."""


def logit_change(reference: Tensor, found: Tensor) -> Tensor:
    """Returns by which share of itself the distribution of a token changes, squared.

    |z - z'|² / |z|², z the logits less their mean, which does not change probabilities.

    Args:
        reference: logits, [V].
        found: logits, [V].

    Returns:
        float32 [], 0 where both are equal.
    """
    z = reference.float() - reference.float().mean()
    change = (found.float() - found.float().mean() - z).square().sum()
    return torch.where(change == 0, 0.0, change / z.square().sum())


class LayerProbe:
    """Runs a model with one layer sparse and all others dense; a handler of the plug-in."""

    def __init__(self, model: nn.Module, sinks: SinkRule, layers: int):
        """Attaches to a copy of the model that shares its tensors.

        Args:
            model: to be probed.
            sinks: which tokens are sinks.
            layers: of the model's text tower.
        """
        self.sinks = sinks
        self.layers = layers
        self.layer = 0
        self.attached = attach(model, self).eval()
        self._heads: dict[tuple[int, int, torch.device], LayerHeads] = {}

    def measure(self, inputs: dict[str, Tensor], logits: Tensor) -> Tensor:
        """Takes one pass for each layer.

        Args:
            inputs: of one prompt, on the model's device.
            logits: what the dense model says behind the prompt, [V].

        Returns:
            float32 [layers] on the CPU: `logit_change` with all heads of a layer at `PROBED`.
        """
        changes = []
        for layer in range(self.layers):
            self.layer = layer
            found = self.attached(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
            changes.append(logit_change(logits, found).cpu())
        return torch.stack(changes)

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Makes the heads of the probed layer sparse."""
        if request.layer != self.layer:
            return request.dense()
        query, key = request.query, request.key
        shape = query.shape[1], key.shape[1], query.device
        if shape not in self._heads:
            self._heads[shape] = LayerHeads.of([PROBED] * shape[0], *shape[1:])
        schedule = request.call.schedule(self.sinks)
        heads = self._heads[shape]
        return prefill_attention(query, key, request.value, schedule, heads, request.scale)

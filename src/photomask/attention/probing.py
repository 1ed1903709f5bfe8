"""Measures how much a model's answer changes if the heads of one layer become sparse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from photomask.attention.kernels import LayerHeads, prefill_attention
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plugin import AttentionRequest, attach

PROBED = Pattern.SINK
"""The pattern that all heads of a probed layer get."""


def logit_change(reference: Tensor, found: Tensor) -> Tensor:
    """Returns the squared relative change of the logits of a token.

    change = |z - z'|² / |z|²

    Here `z` and `z'` are the logits minus their mean. Subtracting the mean does not change the
    probabilities.

    Args:
        reference: the logits of the dense model, [V].
        found: the logits to compare, [V].

    Returns:
        float32 [], 0 if both are equal.
    """
    z = reference.float() - reference.float().mean()
    change = (found.float() - found.float().mean() - z).square().sum()
    return torch.where(change == 0, 0.0, change / z.square().sum())


class LayerProbe:
    """Runs a model with one layer sparse and all others dense. It is a handler of the plug-in."""

    def __init__(self, model: nn.Module, sinks: SinkRule, layers: int):
        """Attaches to a copy of the model that shares its tensors.

        Args:
            model: the model to probe.
            sinks: the rule that says which tokens are sinks.
            layers: the number of layers of the model's text tower.
        """
        self.sinks = sinks
        self.layers = layers
        self.layer = 0
        self.attached = attach(model, self).eval()
        self._heads: dict[tuple[int, int, torch.device], LayerHeads] = {}

    def measure(self, inputs: dict[str, Tensor], logits: Tensor) -> Tensor:
        """Measures the change of the answer for each layer, with one pass for each layer.

        Args:
            inputs: the inputs of one prompt, on the model's device.
            logits: the logits of the dense model for the token after the prompt, [V].

        Returns:
            float32 [layers] on the CPU, the `logit_change` if all heads of the layer have the
            pattern `PROBED`.
        """
        changes = []
        for layer in range(self.layers):
            self.layer = layer
            found = self.attached(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
            changes.append(logit_change(logits, found).cpu())
        return torch.stack(changes)

    def __call__(self, request: AttentionRequest) -> Tensor:
        """Computes a layer sparsely if it is the probed one, and densely otherwise."""
        if request.layer != self.layer:
            return request.dense()
        query, key = request.query, request.key
        shape = query.shape[1], key.shape[1], query.device
        if shape not in self._heads:
            self._heads[shape] = LayerHeads.of([PROBED] * shape[0], *shape[1:])
        schedule = request.call.schedule(self.sinks)
        heads = self._heads[shape]
        return prefill_attention(query, key, request.value, schedule, heads, request.scale)

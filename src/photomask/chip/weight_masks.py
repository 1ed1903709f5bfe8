"""Holds the masks of pruned weights beside the parameters of a prepared model."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.errors import PruningError


class WeightMasks(nn.Module):
    """Bool buffers by parameter, False where a weight is pruned. Weights without one are dense."""

    def of(self, key: str) -> Tensor | None:
        """Returns the mask of a parameter, or None where it is dense."""
        return self._buffers.get(key)

    def put(self, key: str, mask: Tensor, device: torch.device) -> None:
        """Sets the mask of a parameter.

        A mask that exists is overwritten in place, because compiled training steps read its memory.
        """
        held = self.of(key)
        if held is None:
            self.register_buffer(key, mask.to(device, copy=True))
        else:
            held.copy_(mask)

    def apply_to(self, key: str, tensor: Tensor) -> Tensor:
        """Returns a parameter with 0 for pruned weights.

        The gradient also reaches the pruned weights, because pruners ask which of them should grow
        again.
        """
        mask = self.of(key)
        if mask is None:
            return tensor
        # For finite numbers, the sum is exactly `tensor * mask`.
        return tensor + (tensor * mask - tensor).detach()


def demand_zeros(prepared: Any) -> None:
    """Refuses a model in which the quantizer of a pruned weight has no code for 0.

    Args:
        prepared: a calibrated `PreparedModel`.

    Raises:
        PruningError: the message names the layer and its quantizer.
    """
    for node, mask in prepared.pruned_layers():
        layer = prepared.layer(node)
        with torch.no_grad():
            back = (layer.quantized_weight != 0) & ~mask
        if bool(back.any()):
            raise PruningError(
                f"{int(back.sum())} pruned weights of {node.name!r} are not 0 after quantization: "
                f"its quantizer {type(layer.quantizer).__name__} has no code for 0. Use one that "
                "has, such as Quantizer or LSQ, or leave the layer dense"
            )

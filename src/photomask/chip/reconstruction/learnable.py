"""Decides which roundings and scales can be learned, and refuses other models."""

import copy

import torch

from photomask.chip.graph.operations import Constant
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import PerTensor, Quantizer
from photomask.chip.reconstruction.blocks import Block, has_weight
from photomask.errors import QuantizerError

LEARNED_BITS = 8
"""The most bits of an activation whose scale is learned; wider ones keep their scale."""


def is_uniform(quantizer: Quantizer, shape: torch.Size) -> bool:
    """Tells whether a quantizer rounds to the nearest of all its codes for any scale.

    Args:
        quantizer: the fitted quantizer, which is not changed.
        shape: the shape of the quantized tensor.
    """
    own, codes = copy.deepcopy(quantizer).eval(), quantizer.codes
    outside = codes.high - codes.low + 1
    generator = torch.Generator().manual_seed(0)
    shape = shape or torch.Size([4096])
    probes = torch.rand(shape, generator=generator).to(own.scale.device) * 3 * outside - outside
    with torch.no_grad():
        own.set_parameters(own.format, own.scale.detach() * 1.25, own.zero_point)
        plain = copy.deepcopy(own)
        x = (probes + codes.low - own.zero_point_for(probes)) * own.scale_for(probes)
        return torch.equal(own.quantize(x), Quantizer.quantize(plain, x))


def check_reconstructible(prepared: PreparedModel) -> None:
    """Refuses a model with quantizers that are not fitted, or with weight codes not uniform.

    Raises:
        QuantizerError: the message names the first quantizer that is not fitted, or all weights
            whose codes are not uniform.
    """
    refused = []
    for node in prepared.graph.nodes:
        if node.operation.decides_scale and not prepared.activation_quantizer(node.name).is_fitted:
            raise QuantizerError(
                f"the output of {node.name!r} was never calibrated; call calibrate(prepared, data)"
            )
        if not has_weight(node):
            continue
        quantizer = prepared.weight_quantizer(node.name)
        if not quantizer.is_fitted:
            raise QuantizerError(
                f"the weight of {node.name!r} was never calibrated; call calibrate(prepared, data)"
            )
        if not is_uniform(quantizer, prepared.constants_of(node)["weight"].shape):
            refused.append(f"{node.name} ({type(quantizer).__name__})")
    if refused:
        raise QuantizerError(
            "reconstruction learns to round up or down between neighbouring codes, but the codes "
            f"of these weights are not uniform: {', '.join(refused)}. Use Quantizer for them"
        )


def learned_scales(prepared: PreparedModel, block: Block) -> list[str]:
    """Returns the owners of the scales that a block may learn.

    They are scales of narrow activations per tensor that no edge outside the block shares.
    """
    own = {node.name for node in block.nodes if not isinstance(node.operation, Constant)}
    sharing: dict[str, set[str]] = {}
    for node in prepared.graph.nodes:
        if node.operation.decides_scale:
            sharing.setdefault(prepared.scale_owner(node.name), set()).add(node.name)
    found = []
    for owner, names in sharing.items():
        if owner not in own or not names <= own:
            continue
        quantizer = prepared.activation_quantizer(owner)
        narrow = quantizer.bits <= LEARNED_BITS and not quantizer.power_of_two
        per_tensor = isinstance(quantizer.granularity, PerTensor)
        if narrow and per_tensor and is_uniform(quantizer, quantizer.scale.shape):
            found.append(owner)
    return found

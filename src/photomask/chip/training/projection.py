"""Starts the training of weights whose sums are limited from the nearest weights that fit."""

import torch

from photomask.chip.prepared_model import PreparedModel
from photomask.chip.sum_limits import limited_quantizers, project_onto_l1_ball, update_sum_limits


@torch.no_grad()
def project_weights(prepared: PreparedModel) -> None:
    """Projects weights onto the l1 balls of their limits, for `A2Q` and `A2QPlus`.

    A weight that exceeds its limit is otherwise scaled down as a whole. Rounding toward zero then
    loses most of its elements, and training has to find them again. The projection keeps the large
    elements. `A2QPlus` projects the centred weight. Pruned weights, weights with their own factors
    for columns, and views of other tensors stay as they are.

    Args:
        prepared: the calibrated model, whose weights are changed in place; `train` calls it.

    Source: Colbert et al. 2024, section 4.2, arXiv:2401.10432.
    """
    update_sum_limits(prepared)
    for quantizer, layers in limited_quantizers(prepared):
        node = layers[0].node
        name = node.constants["weight"]
        if name in prepared.graph.views or prepared.has_own_factors(node):
            continue
        held, mask = prepared.parameter_of(node), prepared.mask_of(node)
        if mask is None:
            mask = torch.ones_like(held, dtype=torch.bool)
        # The quantizer gets the weight, or the weight times a sign for each channel: the scales of
        # a kept batch norm are in units of the magnitude of its factor.
        v = quantizer.centred(held * mask)
        radius = quantizer.limit * quantizer.scale
        projected = project_onto_l1_ball(v.flatten(1), radius).reshape(v.shape)
        exceeds = v.abs().flatten(1).sum(dim=1) > radius
        moves = exceeds.reshape(-1, *(1,) * (v.ndim - 1)) & mask
        held.copy_(torch.where(moves, projected, held))
        quantizer.set_norm(quantizer.norm_of(quantizer.centred(held * mask)).flatten())

"""Prunes a prepared model at once, without training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning.base import Pruner
from photomask.chip.pruning.contract import check_masks, check_pruner
from photomask.chip.pruning.layers import choose_layers
from photomask.chip.pruning.measuring import Loss, measured_weights
from photomask.chip.pruning.report import PruningReport
from photomask.chip.standing import Effect, changes
from photomask.errors import PruningError, UsageError
from photomask.report import Progress, without_progress
from photomask.stages import stage


@changes(Effect.REWRITES)
@stage(__name__, "prune")
@float32_by_default()
def prune(
    prepared: PreparedModel,
    pruner: Pruner,
    data: Data | None = None,
    *,
    loss: Loss | None = None,
    progress: Progress = without_progress,
) -> PruningReport:
    """Prunes the weights of a prepared model once, by the values that they have now.

    Pruned weights are 0 in every later step: equalization, calibration, reconstruction, training,
    conversion. A second call may prune more, and weights that are pruned stay pruned. Training
    afterwards (`train`) recovers accuracy; given to `train`, the pruner prunes during the training.

    Args:
        prepared: the model, which is changed in place. The scales are undecided afterwards, so
            `calibrate` has to follow.
        pruner: decides which weights are pruned.
        data: samples for pruners that measure inputs or gradients; for gradients with labels, in
            any form that `photomask.chip.data` describes.
        loss: a function of outputs and labels; None for the cross-entropy of the first output.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Returns:
        The layers, how sparse they are, and why others stay dense.

    Raises:
        PruningError: the pruner breaks its contract, or a pattern does not fit a layer; the message
            names the layer and the law.
        OrderError: the weights are rounded already.
        UsageError: the pruner prunes only during a training, or it needs data or labels and there
            are none.
        DataError: the data do not fit the model, or hold NaN or infinity.
        RecipeError: a pattern of the pruner's layers matches nothing.
    """
    check_pruner(pruner)
    if pruner.only_trains:
        raise UsageError(
            f"{type(pruner).__name__} prunes during a training: train(prepared, data, settings, "
            "pruner=pruner). To prune at once, use Magnitude, Wanda or Snip"
        )
    chosen = choose_layers(prepared, pruner)
    weights = measured_weights(prepared, chosen.layers, pruner, data, loss, progress)
    masks = check_masks(pruner, weights, pruner.masks(weights, pruner.sparsity))
    put_masks(prepared, chosen.layers, masks)
    clear_pruned(prepared)
    return PruningReport.of(prepared, repr(pruner), chosen)


def put_masks(prepared: PreparedModel, layers: Sequence[Node], masks: Sequence[Tensor]) -> None:
    """Gives layers their masks.

    Raises:
        PruningError: a mask prunes every weight of a layer, which would cut the network.
    """
    for node, mask in zip(layers, masks, strict=True):
        if not bool(mask.any()):
            raise PruningError(
                f"all {mask.numel():,} weights of {node.name!r} ({node.source}) would be pruned, "
                "which cuts the network there; lower the sparsity, use scope='layer', or leave the "
                "layer out of `layers`"
            )
    for node, mask in zip(layers, masks, strict=True):
        prepared.set_mask(node, mask)


def clear_pruned(prepared: PreparedModel) -> None:
    """Writes 0 into the parameters of pruned weights."""
    with torch.no_grad():
        for node, mask in prepared.pruned_layers():
            prepared.parameter_of(node).mul_(mask)

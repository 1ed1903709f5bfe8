"""Changes the widths of quantizers during training, from more bits to fewer."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from photomask.chip.calibration import calibrate
from photomask.chip.placement import place
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import Quantizer
from photomask.chip.standing import Effect


def quantizers_of(prepared: PreparedModel) -> dict[str, Quantizer]:
    """Returns all quantizers of a prepared model by their module names, used or not."""
    return {
        f"{kind}.{name}": module
        for kind in ("weight_quantizers", "activation_quantizers")
        for name, module in getattr(prepared, kind).items()
    }


def fresh_copy(prepared: PreparedModel) -> PreparedModel:
    """Returns a new, uncalibrated prepared model with the same graph and recipe."""
    return PreparedModel(place(prepared.graph, prepared.recipe, prepared.states))


def least_bits(prepared: PreparedModel) -> int:
    """Returns the width of the narrowest quantizer."""
    return min(quantizer.bits for quantizer in prepared.used_quantizers().values())


def set_least_bits(prepared: PreparedModel, bits: int) -> bool:
    """Gives every quantizer the bits of the recipe, but at least the given number.

    Returns:
        True if a width changed. The scales are then undecided, so `refit` has to follow.

    Raises:
        OrderError: the weights are rounded already, to codes of the old width.
    """
    usual = quantizers_of(fresh_copy(prepared))
    wanted = {
        name: (quantizer, max(bits, usual[name].bits))
        for name, quantizer in quantizers_of(prepared).items()
    }
    if all(quantizer.bits == width for quantizer, width in wanted.values()):
        return False
    with prepared.standing.call("set_least_bits", Effect.REWRITES, prepared):
        for quantizer, width in wanted.values():
            quantizer.bits = width
    return True


def refit(prepared: PreparedModel, batches: Iterable[Tensor | Sequence[Tensor]]) -> None:
    """Fits every scale again, to the current weights and activations; it calls `calibrate`.

    Args:
        prepared: the model, which is changed in place.
        batches: the data, as for `calibrate`.
    """
    calibrate(prepared, batches)

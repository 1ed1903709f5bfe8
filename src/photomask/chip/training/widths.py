"""More bits first, fewer later: the widths of quantizers while a model is trained."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from photomask.chip.calibration import calibrate
from photomask.chip.placement import place
from photomask.chip.preparation import PreparedModel
from photomask.chip.quantizers import Quantizer
from photomask.chip.standing import Effect


def quantizers_of(prepared: PreparedModel) -> dict[str, Quantizer]:
    """Returns the quantizers of a prepared model by their names as modules, used or not."""
    return {
        f"{kind}.{name}": module
        for kind in ("weight_quantizers", "activation_quantizers")
        for name, module in getattr(prepared, kind).items()
    }


def fresh_copy(prepared: PreparedModel) -> PreparedModel:
    """Returns the same graph with the recipe's quantizers as they were before calibration."""
    return PreparedModel(place(prepared.graph, prepared.recipe, prepared.states))


def least_bits(prepared: PreparedModel) -> int:
    """Returns the width of the narrowest quantizer."""
    return min(quantizer.bits for quantizer in prepared.used_quantizers().values())


def set_least_bits(prepared: PreparedModel, bits: int) -> bool:
    """Gives every quantizer the recipe's bits, but no fewer than these; fits nothing.

    Returns:
        Whether any width changed; scales are then not decided any more: `refit` follows.

    Raises:
        OrderError: the weights are rounded to codes of the old width already.
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
    """Fits every scale again, to the weights of now and what they make of the data.

    It is what `calibrate` does, by the name that training has for it.

    Args:
        prepared: changed in place.
        batches: as for `calibrate`.
    """
    calibrate(prepared, batches)

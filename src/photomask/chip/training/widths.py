"""More bits first, fewer later: the widths of quantizers while a model is trained."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from photomask.chip.calibration import calibrate
from photomask.chip.preparation import PreparedModel
from photomask.chip.quantizers import Quantizer


def quantizers_of(prepared: PreparedModel) -> dict[str, Quantizer]:
    """Returns the quantizers of a prepared model by their names as modules, used or not."""
    return {
        f"{kind}.{name}": module
        for kind in ("weight_quantizers", "activation_quantizers")
        for name, module in getattr(prepared, kind).items()
    }


def used_quantizers(prepared: PreparedModel) -> dict[str, Quantizer]:
    """Returns the quantizers that compute, by what they quantize."""
    found: dict[str, Quantizer] = {}
    for node in prepared.graph.nodes:
        if node.operation.decides_scale:
            owner = prepared.scale_owner(node.name)
            found[f"output of {owner!r}"] = prepared.activation_quantizer(owner)
        if "weight" in node.constants:
            found[f"weight of {node.name!r}"] = prepared.weight_quantizer(node.name)
    return found


def fresh_copy(prepared: PreparedModel) -> PreparedModel:
    """Returns the same graph with the recipe's quantizers as they were before calibration."""
    return PreparedModel(prepared.graph, prepared.recipe, prepared.states)


def least_bits(prepared: PreparedModel) -> int:
    """Returns the width of the narrowest quantizer."""
    return min(quantizer.bits for quantizer in used_quantizers(prepared).values())


def set_least_bits(prepared: PreparedModel, bits: int) -> bool:
    """Gives every quantizer the recipe's bits, but no fewer than these; fits nothing.

    Returns:
        Whether any width changed; its quantizer must be fitted again.
    """
    usual = quantizers_of(fresh_copy(prepared))
    changed = False
    for name, quantizer in quantizers_of(prepared).items():
        wanted = max(bits, usual[name].bits)
        changed |= quantizer.bits != wanted
        quantizer.bits = wanted
    return changed


def refit(prepared: PreparedModel, batches: Iterable[Tensor | Sequence[Tensor]]) -> None:
    """Fits every scale again, to the weights of now and what they make of the data.

    Args:
        prepared: changed in place.
        batches: as for `calibrate`.
    """
    fresh = quantizers_of(fresh_copy(prepared))
    for name, quantizer in quantizers_of(prepared).items():
        quantizer.observer = fresh[name].observer
    calibrate(prepared, batches)

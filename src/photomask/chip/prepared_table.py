"""Shows a prepared model as a table of its quantizers."""

from typing import Any

from photomask.chip.quantizers import Quantizer
from photomask.report import Table


def table_of(prepared: Any) -> Table:
    """Returns a table with a row for each site: its quantizers and, once fitted, its scale.

    The notes below the table name tensors of the model that are stored as several copies, because
    different norms or factors were folded into each.

    Args:
        prepared: a `PreparedModel`.
    """
    rows = [("node", "operation", "weights", "output", "step of the output")]
    for site in prepared.sites:
        quantizer = prepared.activation_quantizer(site.name)
        owner = prepared.scale_owner(site.name)
        step = "not calibrated"
        if quantizer.is_fitted:
            step = f"{float(quantizer.scale.detach().min()):.4g}"
        rows.append(
            (
                site.name,
                site.operator,
                _weight(prepared, site.name) if site.has_weight else "",
                _width(quantizer),
                step if owner == site.name else f"{step}, shared with {owner}",
            )
        )
    parted = [
        f"{', '.join(names)}: one tensor of the model, into which different norms or factors were "
        "folded; these copies are stored, and trained, apart"
        for names in prepared.graph.parted
    ]
    return Table(f"model prepared by recipe {prepared.recipe.name!r}", rows, parted)


def _weight(prepared: Any, layer: str) -> str:
    width, owner = _width(prepared.weight_quantizer(layer)), prepared.weight_owner(layer)
    return width if owner == layer else f"{width}, that of {owner}"


def _width(quantizer: Quantizer) -> str:
    return str(quantizer.format) if quantizer.is_fitted else f"{quantizer.bits} bits"

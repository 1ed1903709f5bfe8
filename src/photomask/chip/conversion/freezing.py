"""One walk over the float graph."""

import torch

from photomask.chip.conversion.builder import Conversion
from photomask.chip.conversion.converters import CONVERTERS
from photomask.chip.preparation import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.quantizers.levels import demand_nearest_codes
from photomask.chip.target import Target


def convert(prepared: PreparedModel, target: Target) -> IntegerProgram:
    """Freezes calibrated quantizers into an integer program for a target.

    Args:
        prepared: calibrated; not changed.
        target: the numeric contract.

    Raises:
        QuantizerError: not calibrated, or a quantizer's codes break its own format.
        TargetError: the target cannot hold what the program needs.
    """
    conversion = Conversion(prepared, target)
    for node in prepared.graph.nodes:
        quantizer = prepared.activation_quantizer(node.name)
        if prepared.scale_owner(node.name) == node.name and quantizer.is_fitted:
            demand_nearest_codes(quantizer, f"output of {node.name!r} ({node.source})")
    with torch.no_grad():
        for node in prepared.graph.nodes:
            CONVERTERS[type(node.operation)](conversion, node)
    return IntegerProgram(
        target=target,
        inputs=prepared.graph.inputs,
        outputs=prepared.graph.outputs,
        edges=list(conversion.edges.values()),
        steps=conversion.steps,
        tensors=conversion.tensors,
        formats=conversion.formats,
        provenance={"recipe": str(prepared.recipe)},
    )

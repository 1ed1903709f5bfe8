"""Converts a calibrated model to an integer program, node by node."""

from pathlib import Path

import torch

from photomask.chip.conversion.builder import Conversion
from photomask.chip.conversion.converters import convert_node
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph.module_keys import node_name
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.quantizers import Microscaling, Quantizer
from photomask.chip.quantizers.levels import demand_nearest_codes
from photomask.chip.recipe import Recipe
from photomask.chip.standing import Effect, changes
from photomask.chip.target import Target, load_target
from photomask.chip.weight_masks import demand_zeros
from photomask.documents import aligned
from photomask.errors import TargetError
from photomask.stages import stage


@changes(Effect.READS)
@stage(__name__, "convert")
@float32_by_default()
def convert(prepared: PreparedModel, target: Target | str | Path) -> IntegerProgram:
    """Converts a calibrated model to an integer program for a target.

    Args:
        prepared: the calibrated model, which is not changed.
        target: the numeric contract of the hardware: a target, the name of a preset, or the path of
            a file.

    Returns:
        The integer program.

    Raises:
        OrderError: the model is not calibrated, or was changed since.
        PruningError: the quantizer of a pruned weight has no code for 0.
        QuantizerError: the codes of a quantizer break its own format.
        TargetError: the target cannot hold what the program needs.
        UsageError: batch norms are kept beside their layers.
    """
    _refuse_dynamic_scales(prepared)
    demand_zeros(prepared)
    target = load_target(target)
    conversion = Conversion(prepared, target)
    for node in prepared.graph.nodes:
        if not node.operation.decides_scale or prepared.scale_owner(node.name) != node.name:
            continue
        quantizer = prepared.activation_quantizer(node.name)
        if quantizer.is_fitted:
            demand_nearest_codes(quantizer, f"output of {node.name!r} ({node.source})")
    with torch.no_grad():
        for node in prepared.graph.nodes:
            convert_node(conversion, node)
    return IntegerProgram(
        target=target,
        inputs=prepared.graph.inputs,
        outputs=prepared.graph.outputs,
        edges=list(conversion.edges.values()),
        steps=conversion.steps,
        tensors=conversion.tensors,
        formats=conversion.formats,
        provenance={"recipe": _recorded(prepared.recipe)},
    )


def _recorded(recipe: Recipe) -> str:
    """Returns the text of a recipe for a program; it does not depend on the printed table."""
    _, *rows = recipe.rows()
    return "\n".join([f"recipe {recipe.name}", *(f"  {line}" for line in aligned(rows))])


def _refuse_dynamic_scales(prepared: PreparedModel) -> None:
    """Refuses scales that follow from the data, because every scale of a program is static."""
    nodes = prepared.graph.by_name
    found = [
        f"{what} of {name!r} in {_scales_of(quantizer)} ({nodes[name].source})"
        for what, quantizers in (
            ("weight", prepared.weight_quantizers),
            ("output", prepared.activation_quantizers),
        )
        for name, quantizer in ((node_name(key), q) for key, q in quantizers.items())
        if isinstance(quantizer, Quantizer) and not quantizer.has_static_scale
    ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise TargetError(
            f"{', '.join(found[:3])}{more}: these scales follow from the data, but all scales of "
            "an integer program must be static. Products of MX blocks run on the integer datapath "
            "of photomask.chip.microscaling.dot. For a program, use "
            "Quantizer(8, granularity=PerGroup(32), power_of_two=True) for weights, and "
            "Quantizer(8) for activations"
        )


def _scales_of(quantizer: Quantizer) -> str:
    if isinstance(quantizer, Microscaling):
        return f"{quantizer.element}, blocks along axis {quantizer.axis}"
    return f"{type(quantizer).__name__}, {quantizer.granularity}"

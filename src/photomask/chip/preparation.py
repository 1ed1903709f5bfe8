"""Captures a float model and inserts the quantizers that a recipe asks for.

The quantizers have no scales yet. `photomask.chip.calibration.calibrate` decides those.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import capture_simplified
from photomask.chip.placement import place_with_copies
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import A2Q
from photomask.chip.recipe import Recipe, load_recipe
from photomask.chip.sites import check_states
from photomask.chip.target import Target, load_target
from photomask.errors import UsageError
from photomask.stages import stage


@stage(__name__, "prepare")
@float32_by_default()
def prepare(
    model: nn.Module | ExportedProgram,
    recipe: Recipe | str | Path,
    example: Data,
    *,
    states: Mapping[str, int] | None = None,
    target: Target | str | Path | None = None,
) -> PreparedModel:
    """Captures a model and inserts a quantizer at each place that the recipe names.

    Args:
        model: a module that `torch.export` can capture, or an exported program. It is not changed.
        recipe: a recipe, the name of a preset, or the path of a recipe file.
        example: example inputs with the batch at axis 0; one sample is enough. It is a tensor or an
            array, a tuple with one for each input, a dictionary by the names of `forward`'s
            parameters, or a loader, of which the first batch is taken. Labels are ignored.
        states: by name of an input that carries state from one run to the next, such as a cache,
            the index of the output that updates it. The two share one scale, so that codes pass
            from one run to the next unchanged.
        target: the target of the later conversion: a target, the name of a preset, or the path of a
            file. Quantizers that limit sums (`A2Q`, `A2QPlus`) need the width of its accumulators;
            for other quantizers it changes nothing.

    Returns:
        The prepared model; its scales are decided by `calibrate`.

    Raises:
        DataError: the example is empty, complex or not finite.
        CaptureError: the model cannot be captured.
        UnsupportedOperatorError: operators have no integer form; the error names them all.
        RecipeError: a rule matches nothing.
        UsageError: a state is no floating-point input, or its output does not exist; or a quantizer
            limits sums, and there is no target.
    """
    recipe = load_recipe(recipe)
    target = None if target is None else load_target(target)
    graph = capture_simplified(model, example)
    check_states(graph, states or {})
    prepared = PreparedModel(place_with_copies(graph, recipe, states or {}))
    _limit_sums(prepared, target)
    return prepared


def _limit_sums(prepared: PreparedModel, target: Target | None) -> None:
    """Tells the quantizers that limit sums the width of the target's accumulators."""
    widest: dict[int, tuple[A2Q, int]] = {}
    for node in prepared.graph.nodes:
        if "weight" not in node.constants:
            continue
        quantizer = prepared.weight_quantizer(node.name)
        if not isinstance(quantizer, A2Q):
            continue
        if target is None:
            raise UsageError(
                f"{type(quantizer).__name__} limits the sums of {node.name!r} ({node.source}) to "
                "the accumulators of a target; call prepare(..., target=...)"
            )
        bits = prepared.activation_quantizer(node.inputs[0]).bits
        _, known = widest.get(id(quantizer), (quantizer, 0))
        widest[id(quantizer)] = quantizer, max(bits, known)
    for quantizer, bits in widest.values():
        if target is not None:
            quantizer.limit_sums(target.accumulator_bits, quantizer.bits + bits)

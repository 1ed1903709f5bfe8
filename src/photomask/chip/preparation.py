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
from photomask.chip.recipe import Recipe, load_recipe
from photomask.chip.sites import check_states
from photomask.stages import stage


@stage(__name__, "prepare")
@float32_by_default()
def prepare(
    model: nn.Module | ExportedProgram,
    recipe: Recipe | str | Path,
    example: Data,
    *,
    states: Mapping[str, int] | None = None,
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

    Returns:
        The prepared model; its scales are decided by `calibrate`.

    Raises:
        DataError: the example is empty, complex or not finite.
        CaptureError: the model cannot be captured.
        UnsupportedOperatorError: operators have no integer form; the error names them all.
        RecipeError: a rule matches nothing.
        UsageError: a state is no floating-point input, or its output does not exist.
    """
    recipe = load_recipe(recipe)
    graph = capture_simplified(model, example)
    check_states(graph, states or {})
    return PreparedModel(place_with_copies(graph, recipe, states or {}))

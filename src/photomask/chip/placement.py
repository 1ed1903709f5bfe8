"""Places quantizers: applies a recipe once to all quantization points of a graph."""

from collections.abc import Mapping
from dataclasses import dataclass

from photomask.chip.graph import FloatGraph
from photomask.chip.graph.copies import with_copies
from photomask.chip.graph.scales import refusal
from photomask.chip.quantizers import PerChannel, PerTensor, PowerOfTwoFactors
from photomask.chip.recipe import Recipe, SiteQuantizers
from photomask.chip.sites import Survey, survey
from photomask.errors import RecipeError


@dataclass(frozen=True, eq=False)
class Placement:
    """The quantizers that a recipe gives to the sites of a graph.

    Attributes:
        recipe: the recipe.
        survey: the graph and its sites.
        quantizers: the quantizers of each site; they are new objects, for one model.
    """

    recipe: Recipe
    survey: Survey
    quantizers: Mapping[str, SiteQuantizers]


def place(graph: FloatGraph, recipe: Recipe, states: Mapping[str, int] | None = None) -> Placement:
    """Gives every site of a graph the quantizers that a recipe asks for.

    Args:
        graph: the simplified float graph, with the copies that it is to have.
        recipe: the recipe.
        states: the inputs that carry an output of the previous run, each with the number of that
            output.

    Raises:
        RecipeError: a pattern matches nothing, or the terms of a sum would have different scales.
    """
    found = survey(graph, states)
    return _checked(Placement(recipe, found, recipe.resolve(found.sites)))


def place_with_copies(graph: FloatGraph, recipe: Recipe, states: Mapping[str, int]) -> Placement:
    """Does the same as `place`, with copies of a wide residual stream for the layers that read it.

    Layers read the copies in the recipe's own width. Only sums and norms need the bits of the
    stream, so multipliers stay as narrow as the recipe asks for.

    Args:
        graph: the simplified float graph, without copies.
        recipe: the recipe.
        states: the inputs that carry an output of the previous run, each with the number of that
            output.

    Raises:
        RecipeError: as for `place`.
    """
    plain = survey(graph, states)
    stream = {site.name for site in plain.sites if site.is_residual}
    if not stream:
        return _checked(Placement(recipe, plain, recipe.resolve(plain.sites)))
    # All copies are added first, because rules of the recipe may name them.
    copied = survey(with_copies(graph, stream, states), states)
    resolved = recipe.resolve(copied.sites)
    wide = {name for name in stream if resolved[name].activation.bits > recipe.activation.bits}
    if wide == stream:
        return _checked(Placement(recipe, copied, resolved))
    kept = survey(with_copies(graph, wide, states), states) if wide else plain
    return _checked(Placement(recipe, kept, recipe.resolve(kept.sites)))


def _checked(placement: Placement) -> Placement:
    """Returns the placement, if no activation has scales per channel that a sum cannot use.

    Raises:
        RecipeError: an activation has such scales; names the node, the axis and the sum.
    """
    recipe, found = placement.recipe, placement.survey
    for name, pair in placement.quantizers.items():
        granularity = pair.activation.granularity
        if isinstance(granularity, PerTensor) or isinstance(pair.activation, PowerOfTwoFactors):
            continue
        axis = granularity.axis if isinstance(granularity, PerChannel) else 1
        raise RecipeError(
            f"{recipe.origin(name, found.sites)}: {refusal(found.graph, name, axis)}. Quantize it "
            "per tensor; for the inputs of norms, PowerOfTwoFactors ('norm_inputs') is possible"
        )
    return placement

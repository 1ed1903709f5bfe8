"""Which quantizer stands where: a recipe, decided once for a graph."""

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
    """What a recipe gives every site of a graph.

    Attributes:
        recipe: what was asked for.
        survey: the graph and its sites.
        quantizers: by site; fresh ones, for one model.
    """

    recipe: Recipe
    survey: Survey
    quantizers: Mapping[str, SiteQuantizers]


def place(graph: FloatGraph, recipe: Recipe, states: Mapping[str, int] | None = None) -> Placement:
    """Gives every site of a graph the quantizers that a recipe says.

    Args:
        graph: the simplified float graph, with the copies that it shall have.
        recipe: what is asked for.
        states: the inputs that carry an output of the run before, and which output it is.

    Raises:
        RecipeError: a pattern matches nothing, or a sum would need a scale of its own for each of
            its terms.
    """
    found = survey(graph, states)
    return _checked(Placement(recipe, found, recipe.resolve(found.sites)))


def place_with_copies(graph: FloatGraph, recipe: Recipe, states: Mapping[str, int]) -> Placement:
    """Does the same, and lets layers read a wide residual stream in the recipe's own width.

    Only sums and norms need the stream's bits; multipliers stay as narrow as the recipe says.

    Args:
        graph: the simplified float graph, without copies.
        recipe: what is asked for.
        states: the inputs that carry an output of the run before, and which output it is.

    Raises:
        RecipeError: as for `place`.
    """
    plain = survey(graph, states)
    stream = {site.name for site in plain.sites if site.is_residual}
    if not stream:
        return _checked(Placement(recipe, plain, recipe.resolve(plain.sites)))
    # With all copies there, rules may name them.
    copied = survey(with_copies(graph, stream, states), states)
    resolved = recipe.resolve(copied.sites)
    wide = {name for name in stream if resolved[name].activation.bits > recipe.activation.bits}
    if wide == stream:
        return _checked(Placement(recipe, copied, resolved))
    kept = survey(with_copies(graph, wide, states), states) if wide else plain
    return _checked(Placement(recipe, kept, recipe.resolve(kept.sites)))


def _checked(placement: Placement) -> Placement:
    """Refuses activations with a scale for each index of an axis, and names node, axis and sum.

    Raises:
        RecipeError: there are some that a sum would need outside.
    """
    recipe, found = placement.recipe, placement.survey
    for name, pair in placement.quantizers.items():
        granularity = pair.activation.granularity
        if isinstance(granularity, PerTensor) or isinstance(pair.activation, PowerOfTwoFactors):
            continue
        axis = granularity.axis if isinstance(granularity, PerChannel) else 1
        raise RecipeError(
            f"{recipe.origin(name, found.sites)}: {refusal(found.graph, name, axis)}. Quantize "
            "it per tensor; for what norms read there is PowerOfTwoFactors ('norm_inputs')"
        )
    return placement

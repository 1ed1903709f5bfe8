"""Where quantizers stand in a graph: the places that a recipe decides about."""

from collections.abc import Mapping
from dataclasses import replace

from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Add,
    Concatenate,
    Constant,
    Copy,
    Normalize,
    Tokens,
)
from photomask.chip.graph.scales import refusal, scale_owners
from photomask.chip.quantizers import PerChannel, PerTensor, PowerOfTwoFactors
from photomask.chip.recipe import Recipe, Site, SiteQuantizers
from photomask.errors import RecipeError, UsageError


def sites(graph: FloatGraph, states: Mapping[str, int] | None = None) -> list[Site]:
    """Returns the places where a recipe may put quantizers, in the order of computation.

    Args:
        graph: the simplified float graph.
        states: the inputs that carry an output of the run before, and which output it is.
    """
    states = states or {}
    owners = scale_owners(graph, states)
    carried = set(states.values())
    results = [name for at, name in enumerate(graph.outputs) if at not in carried]
    outputs = {owners[name] for name in results}
    residual = _residual(graph, owners)
    multiplied = {
        owners[name] for node in graph.nodes if node.operation.multiplies for name in node.inputs
    }
    return [
        Site(
            name=node.name,
            operator=node.operation.kind,
            has_weight="weight" in node.constants,
            is_output=node.name in outputs,
            is_residual=node.name in residual,
            is_multiplied=node.name in multiplied,
            reads=tuple(dict.fromkeys(owners[name] for name in node.inputs)),
            takes_factors=node.operation.channel_axis == -1,
        )
        for node in graph.nodes
        if node.operation.decides_scale
    ]


def _residual(graph: FloatGraph, owners: dict[str, str]) -> set[str]:
    """Returns the sums of two edges or more, and what they add up, joined or not.

    What adds a constant alone counts where another sum or a norm reads it: positions of tokens do,
    the bias of an attention does not. A class token and the patches are joined before that sum.
    """
    constants = {node.name for node in graph.nodes if isinstance(node.operation, Constant)}
    read = {
        owners[name]
        for node in graph.nodes
        if isinstance(node.operation, (Add, Normalize))
        for name in node.inputs
    }
    sums = [
        node
        for node in graph.nodes
        if isinstance(node.operation, Add)
        and (node.name in read or not constants & {owners[name] for name in node.inputs})
    ]
    stream = {node.name for node in sums} | {owners[name] for node in sums for name in node.inputs}
    for node in reversed(graph.nodes):
        if isinstance(node.operation, Concatenate) and node.name in stream:
            stream |= {owners[name] for name in node.inputs}
    return stream


def copy_wide_operands(graph: FloatGraph, recipe: Recipe, states: Mapping[str, int]) -> FloatGraph:
    """Lets layers and products read a wide residual stream in the recipe's own width.

    Only sums and norms need the stream's bits; multipliers stay as narrow as the recipe says.
    """
    stream = {site.name for site in sites(graph, states) if site.is_residual}
    # With all copies there, rules may name them.
    resolved = recipe.resolve(sites(with_copies(graph, stream, states), states))
    bits = recipe.activation.bits
    wide = {name for name in stream if resolved[name].activation.bits > bits}
    return with_copies(graph, wide, states)


def with_copies(graph: FloatGraph, stream: set[str], states: Mapping[str, int]) -> FloatGraph:
    """Lets layers and products read copies of the edges that have the scale of `stream`."""
    owners = scale_owners(graph, states)
    copies: dict[str, Node] = {}
    nodes = []
    for node in graph.nodes:
        if node.operation.multiplies:
            for name in node.inputs:
                if owners[name] in stream and name not in copies:
                    copies[name] = replace(
                        graph.by_name[name],
                        name=f"{name}.copy",
                        operation=Copy(),
                        inputs=(name,),
                        constants={},
                        clamp=None,
                    )
                    nodes.append(copies[name])
            inputs = tuple(copies[name].name if name in copies else name for name in node.inputs)
            node = replace(node, inputs=inputs)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def refuse_scales_in_sums(
    graph: FloatGraph,
    recipe: Recipe,
    resolved: Mapping[str, SiteQuantizers],
    states: Mapping[str, int],
) -> None:
    """Refuses activations with a scale for each index of an axis, and names node, axis and sum.

    Raises:
        RecipeError: there are some that a sum would need outside.
    """
    for name, pair in resolved.items():
        granularity = pair.activation.granularity
        if isinstance(granularity, PerTensor) or isinstance(pair.activation, PowerOfTwoFactors):
            continue
        axis = granularity.axis if isinstance(granularity, PerChannel) else 1
        raise RecipeError(
            f"{recipe.origin(name, sites(graph, states))}: {refusal(graph, name, axis)}. Quantize "
            "it per tensor; for what norms read there is PowerOfTwoFactors ('norm_inputs')"
        )


def check_states(graph: FloatGraph, states: Mapping[str, int]) -> None:
    """Refuses states that are no real inputs, or whose outputs do not exist.

    Raises:
        UsageError: says which, and what there is.
    """
    real = [name for name in graph.inputs if not isinstance(graph.by_name[name].operation, Tokens)]
    for name, output in states.items():
        if name not in real:
            raise UsageError(f"no state {name!r}; the model's real inputs are {', '.join(real)}")
        if not 0 <= output < len(graph.outputs):
            raise UsageError(
                f"state {name!r} carries output {output}; the model has {len(graph.outputs)}"
            )

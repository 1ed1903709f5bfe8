"""Computes the cost of each width of each tensor: weight bits, bit operations or cycles."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from photomask.chip.calibration import batches_of, calibrate
from photomask.chip.conversion import convert
from photomask.chip.cost import Accelerator, estimate, load_accelerator
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Accumulates
from photomask.chip.mixed_precision.selection import Pair, Place, Problem
from photomask.chip.mixed_precision.sensitivity import Sensitivities, current_graph
from photomask.chip.mixed_precision.widths import recipe_with_widths
from photomask.chip.placement import place
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.recipe import SiteQuantizers
from photomask.chip.target import Target, load_target
from photomask.documents import Document
from photomask.errors import DocumentError, RecipeError, TargetError, UsageError

Unit = Literal["weight_bits", "bit_operations", "cycles"]


class PairCosts(Document):
    """The costs that depend on the widths of two tensors, because both are factors of a product."""

    first: int
    """The position of one tensor among the sensitivities."""
    second: int
    """The position of the other tensor."""
    costs: tuple[tuple[int, ...], ...]
    """The costs, indexed by the width of the first and then of the second tensor."""


class Costs(Document):
    """The costs of all candidate widths of the tensors of some `Sensitivities`."""

    unit: Unit
    fixed: int
    """The cost that depends on none of the widths."""
    tensors: tuple[tuple[int, ...], ...]
    """For each tensor, in the order of the sensitivities, the cost of each candidate width."""
    pairs: tuple[PairCosts, ...] = ()
    """The costs that depend on the widths of two tensors."""


def problem_of(sensitivities: Sensitivities, costs: Costs) -> Problem:
    """Returns the optimization problem of some sensitivities and costs.

    Raises:
        DocumentError: the costs belong to other tensors or widths than the sensitivities.
    """
    sizes = dict(enumerate(len(tensor.bits) for tensor in sensitivities.tensors))
    if [len(own) for own in costs.tensors] != [*sizes.values()] or any(
        pair.first == pair.second
        or not {pair.first, pair.second} <= {*sizes}
        or [len(row) for row in pair.costs] != [sizes[pair.second]] * sizes[pair.first]
        for pair in costs.pairs
    ):
        raise DocumentError(
            "the costs belong to other tensors or widths than the sensitivities; compute both for "
            "the same model and candidates"
        )
    return Problem(
        tuple(
            Place(tensor.errors, own)
            for tensor, own in zip(sensitivities.tensors, costs.tensors, strict=True)
        ),
        tuple(Pair(pair.first, pair.second, pair.costs) for pair in costs.pairs),
        costs.fixed,
    )


def uniform_cost(sensitivities: Sensitivities, costs: Costs, bits: int) -> int:
    """Returns the cost of giving every tensor the same width, which is a budget to start from.

    Raises:
        UsageError: the width is not among the candidates of a tensor.
    """
    for tensor in sensitivities.tensors:
        if bits not in tensor.bits:
            raise UsageError(
                f"{bits} bits are no candidate for the {tensor.role} of {tensor.site!r}; the "
                f"candidates are {', '.join(map(str, tensor.bits))}"
            )
    choice = [tensor.bits.index(bits) for tensor in sensitivities.tensors]
    return problem_of(sensitivities, costs).cost(choice)


def weight_bit_costs(prepared: PreparedModel, sensitivities: Sensitivities) -> Costs:
    """Returns costs that count the bits of all weights; activations cost nothing.

    Args:
        prepared: the model of the tensors.
        sensitivities: the tensors with their candidate widths.
    """
    found = _Widths(prepared, sensitivities)
    own = [[0] * len(tensor.bits) for tensor in sensitivities.tensors]
    fixed = 0
    for node in prepared.graph.nodes:
        if "weight" in node.constants and prepared.weight_owner(node.name) == node.name:
            count = prepared.constants_of(node)["weight"].numel()
            place, widths = found.weight(node)
            if place is None:
                fixed += count * widths[0]
            else:
                own[place] = [count * bits for bits in widths]
    return _costs("weight_bits", fixed, own)


def bit_operation_costs(prepared: PreparedModel, sensitivities: Sensitivities) -> Costs:
    """Returns costs that count bit operations for one sample.

    The cost of a layer is `multiply-accumulates * weight bits * activation bits`. For a product of
    two activations, their two widths are multiplied. It models the area or the time of multipliers
    that are just as wide as necessary.

    Args:
        prepared: the model of the tensors.
        sensitivities: the tensors with their candidate widths.

    Source: van Baalen et al. 2020, section 2.3, arXiv:2005.07093.
    """
    found = _Widths(prepared, sensitivities)
    own = [[0] * len(tensor.bits) for tensor in sensitivities.tensors]
    fixed, pairs = 0, []
    for node in prepared.graph.nodes:
        count = multiply_accumulates(prepared, node)
        if not count:
            continue
        (first, a), (second, b) = found.factors(node)
        if first is None and second is None:
            fixed += count * a[0] * b[0]
        elif first is None or second is None:
            place, open_bits, other = (first, a, b[0]) if second is None else (second, b, a[0])
            for option, bits in enumerate(open_bits):
                own[int(place or 0)][option] += count * bits * other
        elif first == second:
            for option, bits in enumerate(a):
                own[first][option] += count * bits * bits
        else:
            table = tuple(tuple(count * x * y for y in b) for x in a)
            pairs.append(PairCosts(first=first, second=second, costs=table))
    return _costs("bit_operations", fixed, own, pairs)


@float32_by_default()
def cycle_costs(
    prepared: PreparedModel,
    sensitivities: Sensitivities,
    data: Data,
    target: Target | str | Path,
    accelerator: Accelerator | str | Path,
) -> Costs:
    """Returns the estimated cycles of every width, for one sample.

    They come from an integer program for each width. An array of fixed multipliers computes one
    product per cycle and multiplier, independent of the width. Widths matter only where a layer
    waits for its weights from memory.

    Args:
        prepared: the model of the tensors.
        sensitivities: the tensors with their candidate widths; they must all be weights.
        data: the data that calibrates the programs. A few samples are enough, because no cycle
            depends on them.
        target: the target of the programs, the name of a preset, or the path of a file.
        accelerator: the accelerator of the estimates, the name of a preset, or the path of a file.

    Raises:
        TargetError: the cycles of no layer depend on its width, the cycles of other steps depend on
            it, or the target does not support a width.
        UsageError: the widths of activations are candidates, which affect several layers each.
    """
    if any(tensor.role == "activation" for tensor in sensitivities.tensors):
        raise UsageError(
            "cycles can be a budget only for the widths of weights, because the width of an "
            "activation changes the traffic of every layer that reads or writes it; measure the "
            "sensitivities without activation_bits"
        )
    candidates = sensitivities.tensors[0].bits
    target, accelerator = load_target(target), load_accelerator(accelerator)
    batches = list(batches_of(prepared, data))
    by_width = [
        _cycles(prepared, sensitivities, bits, batches, target, accelerator) for bits in candidates
    ]
    names = [tensor.site for tensor in sensitivities.tensors]
    own = [[cycles.pop(name, 0) for cycles in by_width] for name in names]
    if any(cycles != by_width[0] for cycles in by_width):
        raise TargetError(
            "the cycles of steps other than layers depend on the widths of weights, so the cycles "
            "are no sum over layers; choose a budget in weight bits or in bit operations"
        )
    if all(len(set(costs)) == 1 for costs in own):
        raise TargetError(
            f"on the accelerator {accelerator.name!r} no layer takes fewer cycles with narrower "
            f"weights ({', '.join(map(str, candidates))} bits): its multipliers compute one "
            "product per cycle for any width, and no layer waits for weights from memory. Choose a "
            "budget in weight bits or in bit operations, or an accelerator with slower memory"
        )
    return _costs("cycles", sum(by_width[0].values()), own)


def multiply_accumulates(prepared: PreparedModel, node: Node) -> int:
    """Returns the number of products of a node for one sample, including those with padding."""
    if not node.operation.multiplies:
        return 0
    positions = math.prod(node.shape)
    if node.operation.accumulates is Accumulates.WEIGHTED:
        return positions * math.prod(prepared.constants_of(node)["weight"].shape[1:])
    return positions * prepared.graph.by_name[node.inputs[0]].shape[-1]


class _Widths:
    """Looks up the widths of tensors: the candidates, or the single width of the recipe."""

    def __init__(self, prepared: PreparedModel, sensitivities: Sensitivities):
        self.prepared = prepared
        self.templates: dict[str, SiteQuantizers] = prepared.recipe.resolve(prepared.sites)
        self.places = {
            (tensor.site, tensor.role): position
            for position, tensor in enumerate(sensitivities.tensors)
        }
        self.tensors = sensitivities.tensors

    def weight(self, node: Node) -> tuple[int | None, tuple[int, ...]]:
        """Returns a weight's position among the sensitivities, or None, and its widths."""
        owner = self.prepared.weight_owner(node.name)
        place = self.places.get((owner, "weight"))
        template = self.templates[owner].weight
        if place is not None:
            return place, self.tensors[place].bits
        if template is None:
            raise RecipeError(
                f"the recipe gives the weight of {owner!r} no quantizer; prepare the model with a "
                "recipe that does"
            )
        return None, (template.bits,)

    def activation(self, edge: str) -> tuple[int | None, tuple[int, ...]]:
        """Returns an edge's position among the sensitivities, or None, and its widths."""
        owner = self.prepared.scale_owner(edge)
        place = self.places.get((owner, "activation"))
        if place is not None:
            return place, self.tensors[place].bits
        return None, (self.templates[owner].activation.bits,)

    def factors(self, node: Node) -> list[tuple[int | None, tuple[int, ...]]]:
        """Returns the positions and widths of both factors of a node's products."""
        if node.operation.accumulates is Accumulates.PRODUCTS:
            return [self.activation(name) for name in node.inputs]
        return [self.weight(node), self.activation(node.inputs[0])]


def _costs(
    unit: Unit, fixed: int, own: Sequence[Sequence[int]], pairs: Sequence[PairCosts] = ()
) -> Costs:
    return Costs(unit=unit, fixed=fixed, tensors=tuple(map(tuple, own)), pairs=tuple(pairs))


def _cycles(
    prepared: PreparedModel,
    sensitivities: Sensitivities,
    bits: int,
    batches: Sequence[Tensor | Sequence[Tensor]],
    target: Target,
    accelerator: Accelerator,
) -> dict[str, int]:
    """Returns the cycles by float node if all weights of the sensitivities have one width."""
    recipe = recipe_with_widths(
        prepared, [(tensor.site, tensor.role, bits) for tensor in sensitivities.tensors]
    )
    trial = PreparedModel(place(current_graph(prepared), recipe, prepared.states))
    calibrate(trial, batches)
    program = convert(trial, target)
    found: dict[str, int] = {}
    for step in estimate(program, accelerator).steps:
        node = program.links.steps[step.step].node
        found[node] = found.get(node, 0) + step.costs.cycles.total
    return found

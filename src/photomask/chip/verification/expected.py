"""The program that the model calls for, beside the one under test.

Two things of a program cannot be derived from the float model alone: what the codes of each edge
mean (scale, zero point, format), and the integers that were learned or rounded from the model's
constants. Both are taken as the program states them; the second are compared with the model on
their own (`photomask.chip.verification.parameters`). Everything else follows from them and from the
float graph, and is made again by the converters: operators and their attributes, tables,
multipliers, clamps, formats, and the claims about errors and units. With the prepared model nothing
is taken from the program.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from photomask.chip.conversion import convert
from photomask.chip.conversion.builder import Conversion, GivenParameters
from photomask.chip.conversion.converters import convert_node
from photomask.chip.formats import IntFormat
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.copies import with_copies
from photomask.chip.graph.scales import scale_owners
from photomask.chip.operators import Scaling
from photomask.chip.operators.normalize import GAIN_BITS
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.quantizers import PowerOfTwoFactors, Quantizer
from photomask.errors import PhotomaskError, UsageError


class _Stated:
    """A float graph whose edges mean what a program states."""

    def __init__(self, program: IntegerProgram, graph: FloatGraph):
        self.graph = graph
        self.program = program
        self._owner = scale_owners(graph)
        self._quantizers: dict[str, Quantizer] = {}

    def scale_owner(self, edge: str) -> str:
        """Returns where an edge's values are from."""
        return self._owner[edge]

    def activation_quantizer(self, edge: str) -> Quantizer:
        """Returns a quantizer with the scale, zero point and format of an edge's owner."""
        owner = self._owner[edge]
        if owner not in self._quantizers:
            self._quantizers[owner] = _as_stated(self.program.edges[owner])
        return self._quantizers[owner]

    def weight_quantizer(self, node: str) -> Quantizer:
        """Weights are given; none is quantized anew."""
        raise UsageError(f"the program states no weight of {node!r}")

    def constants_of(self, node: Node) -> dict[str, Tensor]:
        """Returns the model's own constants."""
        return self.graph.constants_of(node)


def _as_stated(stated: Edge) -> Quantizer:
    """Returns a quantizer whose codes mean what an edge states."""
    scale = torch.tensor(stated.scale, dtype=torch.float64)
    narrow = bool((scale.float().double() == scale).all())
    bits = stated.format.bits
    if len(stated.scale) > 1:
        quantizer: Quantizer = PowerOfTwoFactors(bits, largest_factor=14)
    else:
        scale = scale.reshape(())
        quantizer = Quantizer(bits, symmetric=stated.zero_point == 0)
    if not narrow:
        quantizer = quantizer.double()
    zero_point = torch.full(scale.shape, stated.zero_point, dtype=torch.int64)
    quantizer.set_parameters(stated.format, scale, zero_point)
    return quantizer


@dataclasses.dataclass(frozen=True)
class Expected:
    """The steps that a model calls for; fewer than it has where one of them cannot be made."""

    steps: dict[str, Step]
    edges: dict[str, Edge]
    tensors: dict[str, np.ndarray]
    formats: dict[str, IntFormat]
    outputs: tuple[str, ...]


def expected_program(
    program: IntegerProgram, graph: FloatGraph, prepared: PreparedModel | None = None
) -> Expected:
    """Makes the program that a model calls for.

    Args:
        program: states what edges mean, and what was learned, where `prepared` is None.
        graph: the model's simplified float graph.
        prepared: what the program was converted from.

    Raises:
        PhotomaskError: the prepared model cannot be converted for the program's target.
    """
    if prepared is not None:
        made = convert(prepared, program.target)
        steps = {step.name: step for step in made.steps}
        return Expected(steps, made.edges, made.tensors, made.formats, made.outputs)
    graph = _with_stated_copies(program, graph)
    conversion = Conversion(
        _Stated(program, graph), program.target, given=_given_parameters(program)
    )
    with torch.no_grad():
        for node in graph.nodes:
            try:
                convert_node(conversion, node)
            except (PhotomaskError, KeyError, ValueError):
                break  # what is missing counts as wrong
    steps = {step.name: step for step in conversion.steps}
    return Expected(steps, conversion.edges, conversion.tensors, conversion.formats, graph.outputs)


def _with_stated_copies(program: IntegerProgram, graph: FloatGraph) -> FloatGraph:
    """Adds the copies of wide edges that a recipe asked for, where the program has them."""
    known = {node.name for node in graph.nodes}
    owners = scale_owners(graph)
    copied = {owners[name] for name in known if f"{name}.copy" in program.edges.keys() - known}
    return with_copies(graph, copied, {}) if copied else graph


def _given_parameters(program: IntegerProgram) -> dict[str, GivenParameters]:
    """Returns what was learned, by node."""
    return {
        step.node: GivenParameters(
            {role: program.tensors[step.tensors[role]] for role in roles},
            {role: _format(program, step, role) for role in roles},
            np.array(program.edges[step.output].scale),
        )
        for step in program.steps
        if (roles := [r for r in step.operator.learned_roles if r in step.tensors])
    }


def _format(program: IntegerProgram, step: Step, role: str) -> IntFormat:
    """Returns a learned tensor's format; only that of weights is the recipe's to choose."""
    if role == "bias":
        return IntFormat(bits=program.target.bias_bits, signed=True)
    if role == "gain":
        return IntFormat(bits=GAIN_BITS, signed=True)
    if role in ("table", "value"):
        return program.edges[step.output].format
    return program.formats[step.tensors[role]]


@dataclasses.dataclass
class Wrong:
    """How much of a node is not as the model calls for."""

    rescalings: int = 0
    """Integers and claims of requantizations and additions."""
    values: int = 0
    """Those of all other steps, and what edges mean."""


def wrong_values(program: IntegerProgram, expected: Expected) -> dict[str, Wrong]:
    """Counts, by node, what is not as the model calls for; nodes without such are left out.

    Integers of tensors count each; of a step's operator, inputs, claims, and of its edge, every
    attribute that differs counts one. Steps that are missing, or one too many, count one.
    """
    found: dict[str, Wrong] = {}
    steps = program.links.steps
    for name in [*steps, *(name for name in expected.steps if name not in steps)]:
        mine, other = steps.get(name), expected.steps.get(name)
        node = found.setdefault((mine or expected.steps[name]).node, Wrong())
        if mine is None or other is None:
            node.values += 1
            continue
        wrong = _wrong_step(mine, other) + _wrong_tensors(program, mine, expected, other)
        if mine.operator.scaling is Scaling.CHANGED:
            node.rescalings += wrong
        else:
            node.values += wrong
        node.values += _wrong_edge(program.edges[mine.output], expected.edges.get(other.output))
    for name in program.inputs:
        wrong = _wrong_edge(program.edges[name], expected.edges.get(name))
        found.setdefault(name, Wrong()).values += wrong
    if program.outputs != expected.outputs:
        found[program.steps[-1].node].values += 1
    return {name: wrong for name, wrong in found.items() if wrong.rescalings or wrong.values}


def _wrong_step(step: Step, expected: Step) -> int:
    operator, other = step.operator.model_dump(), expected.operator.model_dump()
    wrong = _differing(operator, other)
    for attribute in ("inputs", "output", "node", "relative_error", "worst_error"):
        wrong += getattr(step, attribute) != getattr(expected, attribute)
    # Programs of earlier versions do not record by what they divide; their multipliers say it.
    wrong += step.divisors is not None and step.divisors != expected.divisors
    return wrong


def _wrong_edge(edge: Edge, expected: Edge | None) -> int:
    """Counts attributes; the interval follows from the step, as every program is checked."""
    if expected is None:
        return 1
    mine, other = edge.model_dump(), expected.model_dump()
    for ends in (mine, other):
        del ends["low"], ends["high"]
    return _differing(mine, other)


def _differing(mine: Mapping[str, object], other: Mapping[str, object]) -> int:
    """Counts the entries that differ; of tuples of numbers, each number."""
    wrong = 0
    for name in mine.keys() | other.keys():
        a, b = mine.get(name), other.get(name)
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            wrong += sum(x != y for x, y in zip(a, b, strict=True))
        else:
            wrong += a != b
    return wrong


def _wrong_tensors(program: IntegerProgram, step: Step, expected: Expected, other: Step) -> int:
    wrong = 0
    for role in step.tensors.keys() | other.tensors.keys():
        if role not in step.tensors or role not in other.tensors:
            wrong += 1
            continue
        mine, theirs = step.tensors[role], other.tensors[role]
        a, b = program.tensors[mine], expected.tensors[theirs]
        wrong += int((a != b).sum()) if a.shape == b.shape else 1
        wrong += program.formats[mine] != expected.formats[theirs]
    return wrong

"""Every layer of a program beside the same layer of the float model."""

from collections.abc import Container, Iterator, Sequence

import numpy as np
from torch import Tensor

from photomask.chip.engines import TorchEngine
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.operators import Requantize
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.chip.verification.channels import channel_report, channel_tally
from photomask.chip.verification.documents import (
    AccumulatorReport,
    LayerReport,
    WeightReport,
)
from photomask.chip.verification.engines import quantized
from photomask.chip.verification.expected import Wrong, expected_program, wrong_values
from photomask.chip.verification.inputs import require_edges
from photomask.chip.verification.parameters import Strays, stray_parameters
from photomask.chip.verification.tallies import BINS, EdgeTally
from photomask.errors import DataError
from photomask.report import Progress


def compare_layers(
    program: IntegerProgram,
    graph: FloatGraph,
    engine: TorchEngine,
    batches: list[list[Tensor]],
    progress: Progress,
    prepared: PreparedModel | None = None,
) -> tuple[LayerReport, ...]:
    """Runs float graph and program on the same samples and compares every node's edge.

    Args:
        program: what to compare.
        graph: the simplified float graph; its nodes have the names of the program's edges.
        engine: runs the program.
        batches: real inputs.
        progress: shows how far it is.
        prepared: what the program was converted from, where that is at hand.

    Raises:
        DataError: the program is not one of this model.
    """
    require_edges(program, graph)
    tallies = {
        node.name: EdgeTally(program.edges[node.name], channel_tally(program, node.name))
        for node in graph.nodes
    }
    accumulators: dict[str, list[int]] = {}
    for batch in progress(batches, "comparing layers"):
        for node, value, codes in _paired(program, graph, engine, batch, accumulators):
            if value.shape[1:] != codes.shape[1:]:
                raise DataError(
                    f"the model's node {node.name!r} has shape {list(value.shape)}, the program's "
                    f"edge {list(codes.shape)}: it was made from another model"
                )
            tallies[node.name].add(value, codes)
    facts = _Facts(program, graph, accumulators, prepared)
    return tuple(facts.layer(node, tallies[node.name]) for node in graph.nodes)


def _paired(
    program: IntegerProgram,
    graph: FloatGraph,
    engine: TorchEngine,
    batch: list[Tensor],
    accumulators: dict[str, list[int]],
) -> Iterator[tuple[Node, Tensor, Tensor]]:
    """Yields every node with its float value and its integers; notes what accumulators hold."""
    edges = engine.edges(quantized(program, batch))
    waiting: dict[str, Tensor] = {}
    for node, value in graph.run(batch):
        while node.name not in waiting:
            name, codes = next(edges)
            if program.edges[name].role == "accumulator":
                ends = accumulators.setdefault(name, [])
                ends += [int(end) for end in codes.aminmax()]
            else:
                waiting[name] = codes
        yield node, value, waiting.pop(node.name).cpu()


class _Facts:
    """What a program says of its layers, beside what was observed."""

    def __init__(
        self,
        program: IntegerProgram,
        graph: FloatGraph,
        accumulators: dict[str, list[int]],
        prepared: PreparedModel | None,
    ):
        self.program = program
        self.accumulators = accumulators
        self.strays = stray_parameters(program, graph) if prepared is None else {}
        self.wrong = _by_node_of(
            graph, wrong_values(program, expected_program(program, graph, prepared))
        )
        self.operations = program.multiply_accumulates()

    def layer(self, node: Node, tally: EdgeTally) -> LayerReport:
        """Puts together what is known of one node."""
        edge, steps = tally.edge, self.program.links.of_node(node.name)
        wrong, strays = self.wrong.get(node.name, Wrong()), self.strays.get(node.name)
        weight = self._weight(steps)
        errors = [step.relative_error for step in steps if isinstance(step.operator, Requantize)]
        return LayerReport(
            node=node.name,
            operator=node.operation.kind,
            source=node.source,
            shape=edge.shape[1:],
            format=edge.format,
            sqnr_db=tally.noise.sqnr_db,
            represented=(self._real(edge, edge.format.low), self._real(edge, edge.format.high)),
            observed=(tally.floats.low, tally.floats.high),
            codes=(min(tally.codes), max(tally.codes)),
            elements=tally.elements,
            saturated_low=tally.saturated_low,
            saturated_high=tally.saturated_high,
            histogram=tuple(int(n) for n in tally.histogram),
            weight=weight,
            accumulator=self._accumulator(steps),
            multiplier_error=max(errors) if errors else None,
            wrong_rescalings=wrong.rescalings,
            wrong_values=wrong.values,
            stray_constants=0 if strays is None or weight else strays.total,
            multiply_accumulates=sum(self.operations.get(step.name, 0) for step in steps),
            parameters=sum(
                size for step in steps for size, _ in self._sizes(step, step.operator.model_roles())
            ),
            bytes=sum(bits for step in steps for _, bits in self._sizes(step, step.tensors)) / 8,
            float_values=tally.floats.statistics,
            integer_values=tally.reals.statistics,
            channels=channel_report(self.program, node.name, tally.channels),
        )

    def _real(self, edge: Edge, code: int) -> float:
        return (code - edge.zero_point) * edge.scale[0]

    def _sizes(self, step: Step, roles: Container[str]) -> list[tuple[int, int]]:
        """Elements and bits of a step's tensors of some roles."""
        tensors = [name for role, name in step.tensors.items() if role in roles]
        sizes = [(self.program.tensors[name].size, name) for name in tensors]
        return [(size, size * self.program.formats[name].bits) for size, name in sizes]

    def _weight(self, steps: Sequence[Step]) -> WeightReport | None:
        step = next((step for step in steps if "weight" in step.tensors), None)
        if step is None:
            return None
        name = step.tensors["weight"]
        codes, format = self.program.tensors[name], self.program.formats[name]
        strays = self.strays.get(step.node, Strays(None, None))
        return WeightReport(
            format=format,
            low=int(codes.min()),
            high=int(codes.max()),
            histogram=_code_histogram(codes, format),
            stray_weights=strays.weights,
            stray_biases=strays.biases,
        )

    def _accumulator(self, steps: Sequence[Step]) -> AccumulatorReport | None:
        edges = [self.program.edges[step.output] for step in steps]
        edges = [edge for edge in edges if edge.role == "accumulator"]
        if not edges:
            return None
        observed = [value for edge in edges for value in self.accumulators[edge.name]]
        seen = Interval(min(observed), max(observed))
        return AccumulatorReport(
            proven_bits=max(_signed_bits(edge.interval) for edge in edges),
            observed_bits=_signed_bits(seen),
            low=seen.low,
            high=seen.high,
        )


def _by_node_of(graph: FloatGraph, wrong: dict[str, Wrong]) -> dict[str, Wrong]:
    """Counts nodes that a model's graph lacks, such as copies, with the node that they are of."""
    found: dict[str, Wrong] = {}
    for name, counts in wrong.items():
        known = [name, name.removesuffix(".copy"), graph.nodes[-1].name]
        node = next(other for other in known if other in graph.by_name)
        total = found.setdefault(node, Wrong())
        total.rescalings += counts.rescalings
        total.values += counts.values
    return found


def _signed_bits(interval: Interval) -> int:
    """Bits of the narrowest signed integer that holds every value."""
    return interval.bits + (interval.low >= 0)


def _code_histogram(codes: np.ndarray, format: IntFormat) -> tuple[int, ...]:
    """Counts codes in at most `BINS` equal parts of the format."""
    bins = min(BINS, 1 << format.bits)
    part = (codes.reshape(-1) - format.low) * bins >> format.bits
    return tuple(int(n) for n in np.bincount(part, minlength=bins))

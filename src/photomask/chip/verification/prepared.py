"""Every integer of a program beside what the prepared model computes in its place."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.engines import TorchEngine
from photomask.chip.graph import Node
from photomask.chip.graph.operations import Input, Tokens
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.standing import Effect
from photomask.chip.verification.engines import quantized
from photomask.chip.verification.inputs import checked_inputs, require_edges
from photomask.chip.verification.outputs import is_classes, split
from photomask.documents import Document
from photomask.report import Progress, Shown, Table, in_order, without_progress
from photomask.stages import stage


class EdgeDifference(Document):
    """One node of the prepared model, from the program's own integers.

    Attributes:
        node: its name, and that of the program's edge.
        operator: what it does.
        source: file and line of the model's code.
        elements: how many integers were compared.
        differing: how many are not the same.
        largest: difference, in integers.
    """

    node: str
    operator: str
    source: str
    elements: int
    differing: int
    largest: int


class OutputDecisions(Document):
    """One output with a score for each of several classes, each model computing by itself.

    Attributes:
        output: its name.
        samples: how many were compared.
        alike: how many are put in the same class.
    """

    output: str
    samples: int
    alike: int


class PreparedReport(Shown, Document):
    """How a program differs from the prepared model that it was converted from.

    Attributes:
        edges: one entry for each node that computes.
        decisions: one entry for each output of classes.
    """

    schema_version: Literal[1] = 1
    edges: tuple[EdgeDifference, ...]
    decisions: tuple[OutputDecisions, ...]

    @property
    def differing(self) -> int:
        """How many integers differ, of all edges together."""
        return sum(edge.differing for edge in self.edges)

    @property
    def largest(self) -> int:
        """The largest difference of any edge."""
        return max((edge.largest for edge in self.edges), default=0)

    def shown(self) -> Table:
        """Returns the sums, and a row for each edge that differs."""
        total = sum(edge.elements for edge in self.edges)
        title = f"{self.differing:,} of {total:,} integers differ, by at most {self.largest}"
        decisions = [
            f"{made.output}: {made.alike:,} of {made.samples:,} samples in the same class"
            for made in self.decisions
        ]
        rows = [("node", "operation", "differing", "of", "by at most", "source")]
        rows += [
            (e.node, e.operator, f"{e.differing:,}", f"{e.elements:,}", str(e.largest), e.source)
            for e in self.edges
            if e.differing
        ]
        return Table(title, rows, decisions)


@stage(__name__, "compare with the prepared model")
@float32_by_default()
def compare_with_prepared(
    prepared: PreparedModel,
    program: IntegerProgram,
    inputs: Data,
    *,
    device: str | torch.device = "cpu",
    progress: Progress = without_progress,
) -> PreparedReport:
    """Counts the integers in which a program differs from the prepared model it was made from.

    Every node of the model, in float64, gets the program's own integers, so that a difference is
    that node's and no echo of an earlier one. After `align_to_target(prepared.double(), target)`
    there is none but where alignment leaves a scale as it is; without it they are what rounding the
    multipliers makes, one step at most where these have as many bits as the codes.

    Args:
        prepared: as it was converted; not changed.
        program: converted from `prepared`.
        inputs: real samples at axis 0, in any form that `photomask.chip.data` describes.
        device: where both compute.
        progress: shows the batches.

    Raises:
        DataError: inputs of the wrong shape or dtype, or a program of another model.
        UsageError: arguments in another order.
    """
    call = "compare_with_prepared(prepared, program, inputs)"
    prepared, program = in_order(prepared, program, IntegerProgram, call)
    prepared.standing.demand("compare_with_prepared", Effect.READS, prepared)
    tensors = checked_inputs(program, inputs).inputs
    model = copy.deepcopy(prepared).double().eval().to(device)
    engine, nodes = TorchEngine(program, device), model.graph.nodes
    require_edges(program, model.graph)
    tallies = {node.name: _Tally(node) for node in nodes if _computes(model, node)}
    outputs = [name for name in program.outputs if is_classes(program.edges[name].shape)]
    alike = dict.fromkeys(outputs, 0)
    with torch.no_grad():
        for batch in progress(split(tensors), "comparing with the prepared model"):
            found = {
                name: program.edges[name].dequantize(codes)
                for name, codes in engine.edges(quantized(program, batch))
            }
            for node in nodes:
                if node.name in tallies:
                    tallies[node.name].add(model, [found[i] for i in node.inputs], found[node.name])
            exact = [x.to(device, torch.float64 if x.is_floating_point() else None) for x in batch]
            alone = dict(zip(model.graph.outputs, model(*exact), strict=True))
            for name in outputs:
                same = found[name].argmax(1) == alone[name].argmax(1)
                alike[name] += int(same.sum())
    return PreparedReport(
        edges=tuple(tally.entry() for tally in tallies.values()),
        decisions=tuple(
            OutputDecisions(output=name, samples=len(tensors[0]), alike=count)
            for name, count in alike.items()
        ),
    )


def _computes(model: PreparedModel, node: Node) -> bool:
    """Tells whether a node makes numbers, and does not hand on those of another."""
    owner = model.graph.by_name[model.scale_owner(node.name)]
    given = isinstance(node.operation, Input) or isinstance(owner.operation, Tokens)
    return node.operation.is_quantized and not given


@dataclass
class _Tally:
    """What was counted of one node."""

    node: Node
    elements: int = 0
    differing: int = 0
    largest: int = 0

    def add(self, model: PreparedModel, operands: list[Tensor], found: Tensor) -> None:
        """Counts a batch."""
        expected = model.settle(self.node, model.compute(self.node, operands))
        step = model.activation_quantizer(self.node.name).scale_for(found)
        difference = ((expected - found) / step).round().abs()
        self.elements += found.numel()
        self.differing += int(difference.count_nonzero())
        self.largest = max(self.largest, int(difference.max()))

    def entry(self) -> EdgeDifference:
        """Returns the sums."""
        return EdgeDifference(
            node=self.node.name,
            operator=self.node.operation.kind,
            source=self.node.source,
            elements=self.elements,
            differing=self.differing,
            largest=self.largest,
        )

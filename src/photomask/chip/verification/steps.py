"""The facts of every step of a program, as its exported files have them."""

from collections.abc import Sequence
from dataclasses import dataclass

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.estimates import HardwareReport
from photomask.chip.cost.fusion import edge_bytes
from photomask.chip.cost.liveness import LiveMemory, live_memory
from photomask.chip.cost.products import packed_bytes
from photomask.chip.forms.c.network import Network
from photomask.chip.forms.c.project import NAME
from photomask.chip.forms.rtl.lowering import map_memory
from photomask.chip.forms.rtl.memory_map import MemoryMap
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.verification.documents import LayerReport
from photomask.chip.verification.step_documents import (
    EdgeFacts,
    MemoryReport,
    Numbers,
    StepReport,
    TensorFacts,
)
from photomask.errors import TargetError


@dataclass(frozen=True)
class ProgramFacts:
    """Inputs, steps and memory of a program."""

    inputs: tuple[EdgeFacts, ...]
    steps: tuple[StepReport, ...]
    memory: MemoryReport


def program_facts(
    program: IntegerProgram, layers: Sequence[LayerReport], hardware: HardwareReport | None
) -> ProgramFacts:
    """Returns what there is to say of every step.

    Args:
        program: what was verified.
        layers: what was measured of the nodes of the float model.
        hardware: what the program costs on an accelerator; decides cycles and the addresses of the
            RTL form.
    """
    return _Facts(program, layers, hardware).all()


class _Facts:
    """Everything that the facts of single steps are looked up in."""

    def __init__(
        self,
        program: IntegerProgram,
        layers: Sequence[LayerReport],
        hardware: HardwareReport | None,
    ):
        self.program = program
        self.noise = {layer.node: layer.sqnr_db for layer in layers}
        self.live = live_memory(program)
        self.operations = program.multiply_accumulates()
        network = Network(program, NAME, external=True)
        self.plan = None if network.problems else network.plan
        self.map = None if hardware is None else _rtl_map(program, hardware.accelerator)
        steps = () if hardware is None else hardware.steps
        self.cycles = {found.step: found.costs.cycles.total for found in steps}
        self.fused = {name: found.step for found in steps for name in found.fused}

    def all(self) -> ProgramFacts:
        """Returns the facts of the whole program."""
        program = self.program
        return ProgramFacts(
            inputs=tuple(self.edge(name) for name in program.inputs),
            steps=tuple(self.step(number, step) for number, step in enumerate(program.steps)),
            memory=self.memory(),
        )

    def edge(self, name: str) -> EdgeFacts:
        """Returns the facts of an edge."""
        edge = self.program.edges[name]
        return EdgeFacts(
            name=name,
            role=edge.role,
            shape=edge.shape,
            format=edge.format,
            scale=Numbers.of(edge.scale),
            zero_point=edge.zero_point,
            low=edge.low,
            high=edge.high,
            bytes=edge_bytes(self.program, name),
            arena_offset=None if self.plan is None else self.plan.offsets.get(name),
            place=None if self.map is None else self.map.edges[name],
        )

    def step(self, number: int, step: Step) -> StepReport:
        """Returns the facts of a step."""
        live = self.live[number]
        return StepReport(
            name=step.name,
            operator=step.operator.kind,
            node=step.node,
            source=step.source,
            inputs=step.inputs,
            output=self.edge(step.output),
            tensors=tuple(self.tensor(role, name) for role, name in step.tensors.items()),
            attributes=step.operator.model_dump(mode="json", exclude={"kind"}),
            relative_error=step.relative_error,
            sqnr_db=self.noise.get(step.output),
            multiply_accumulates=self.operations.get(step.name, 0),
            cycles=self.cycles.get(step.name),
            fused_into=self.fused.get(step.name),
            live_activation_bytes=live.activation_bytes,
            live_accumulator_bytes=live.accumulator_bytes,
        )

    def tensor(self, role: str, name: str) -> TensorFacts:
        """Returns the facts of a constant tensor."""
        tensor, format = self.program.tensors[name], self.program.formats[name]
        return TensorFacts(
            role=role,
            format=format,
            shape=tensor.shape,
            numbers=Numbers.of(tensor),
            bytes=packed_bytes(Packing.of(format, self.program.target), tensor.size),
        )

    def memory(self) -> MemoryReport:
        """Returns what memory the edges need."""
        none = LiveMemory(step="", activation_bytes=0, accumulator_bytes=0)
        activations = max(self.live, key=lambda live: live.activation_bytes, default=none)
        accumulators = max(self.live, key=lambda live: live.accumulator_bytes, default=none)
        depths: dict[str, int] = {} if self.map is None else {**self.map.depths()}
        lanes = None if self.map is None else next(iter(self.map.edges.values())).lanes
        return MemoryReport(
            peak_activation_bytes=activations.activation_bytes,
            peak_activation_step=activations.step,
            peak_accumulator_bytes=accumulators.accumulator_bytes,
            peak_accumulator_step=accumulators.step,
            arena_bytes=None if self.plan is None else self.plan.bytes,
            activation_words=depths.get("activations"),
            accumulator_words=depths.get("accumulators"),
            word_lanes=lanes,
        )


def _rtl_map(program: IntegerProgram, accelerator: Accelerator) -> MemoryMap | None:
    """Returns where the RTL form stores every edge; None if no design is this accelerator."""
    try:
        return map_memory(program, accelerator)
    except TargetError:
        return None

"""Estimates what a program costs on an accelerator: cycles, utilization, traffic and energy.

The model runs one sample, one step after the other. A step reads its operands from external memory
and writes its results there, as in SCALE-Sim. No data stay on chip between steps.

```text
array     load + compute + fill and drain: see `dataflow`
lanes     ceil(operations / columns)
memory    ceil(external bytes / memory_bytes_per_cycle)
cycles    first + max(array + lanes, memory - first - last) + last
stall     cycles - array - lanes
```

`first` is the transfer of the operands of the first tile; nothing can be computed before it. `last`
is the transfer of the results of the last tile. All other transfers run while the array computes on
the other halves of the buffers. The lanes that rescale results are as fast as the array.

```text
energy    multiply-accumulates and operations of the lanes
          + bytes read from and written to the buffers * buffer_byte_pj
          + bytes read from and written to external memory * external_byte_pj
```

Source: Chen et al. 2016, Eyeriss, ISCA, for energy as accesses of each level times their cost;
Samajdar et al. 2018, SCALE-Sim, arXiv:1811.02883, for cycles.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.cost.fusion import (
    FusionGroup,
    constant_bytes,
    edge_bytes,
    fusion_groups,
    lane_work,
)
from photomask.chip.cost.products import Product, packed_bytes, product_of
from photomask.chip.cost.tiling import TiledProduct, Tiling, tile_product
from photomask.chip.program import IntegerProgram
from photomask.chip.sparsity import NofM
from photomask.documents import Document
from photomask.report import Shown, Table
from photomask.stages import stage

Part = TypeVar("Part", bound=Document)


class Cycles(Document):
    """The cycles by what happens in them; their sum is the time."""

    load: int = 0
    """Cycles in which stationary operands enter the array."""
    compute: int = 0
    """Cycles in which operands stream through the array, or through the lanes if the step has no
    products.
    """
    fill_drain: int = 0
    """Cycles in which the array is partly empty, at the beginning and the end of a fold."""
    stall: int = 0
    """Cycles in which the array waits for external memory."""

    @property
    def total(self) -> int:
        """The number of all cycles."""
        return self.load + self.compute + self.fill_drain + self.stall


class Traffic(Document):
    """Bytes by what they hold."""

    weights: int = 0
    """The bytes of weights; in external memory also of biases, multipliers, shifts and tables."""
    activations: int = 0
    """The bytes of the step's inputs."""
    results: int = 0
    """In external memory the bytes of the step's output, in buffers the bytes of accumulators."""

    @property
    def total(self) -> int:
        """The number of all bytes."""
        return self.weights + self.activations + self.results


class Energy(Document):
    """Energy in picojoules."""

    compute_pj: float = 0.0
    buffers_pj: float = 0.0
    external_pj: float = 0.0

    @property
    def total_pj(self) -> float:
        """The sum of all energy in picojoules."""
        return self.compute_pj + self.buffers_pj + self.external_pj


class Costs(Document):
    """What a step, or a whole program, costs for one sample."""

    multiply_accumulates: int
    """The number of multiply-accumulates that the array computes.

    Those with weights of folds that are skipped, or outside compressed weights, do not count.
    """
    cycles: Cycles
    utilization: float
    """The multiply-accumulates, divided by those that all cells could have done: 0 to 1."""
    external: Traffic
    buffers: Traffic
    energy: Energy


class StepEstimate(Document):
    """One step and what it costs."""

    step: str
    operator: str
    fused: tuple[str, ...]
    """The steps that are applied to its results as they leave. Their cost is included in this one.
    """
    costs: Costs
    tiling: Tiling | None
    """The tiles; None for a step that multiplies no matrices and streams through the lanes."""
    compressed: NofM | None = None
    """The pattern of the weights if the array takes them compressed."""
    skipped_folds: int = 0
    """The number of folds that are not computed, because their weights are all zero."""


class HardwareReport(Shown, Document):
    """What a program costs on an accelerator."""

    schema_version: Literal[1] = 1
    program_sha256: str
    accelerator: Accelerator
    steps: tuple[StepEstimate, ...]
    totals: Costs

    @property
    def milliseconds(self) -> float:
        """The time of one sample at the accelerator's clock, in milliseconds."""
        return self.totals.cycles.total / (1000 * self.accelerator.clock_mhz)

    def shown(self) -> Table:
        """Returns a row for each step, and a row with the sums."""
        rows = [_TITLES, *(_row(found.step, found.operator, found.costs) for found in self.steps)]
        machine, totals = self.accelerator, self.totals
        kept = "" if machine.sparse is None else f" for {machine.sparse}"
        title = (
            f"estimate for accelerator {machine.name!r}, {machine.rows}×{machine.columns}{kept}, "
            f"{machine.dataflow.replace('_', ' ')}: {totals.cycles.total:,} cycles, "
            f"{self.milliseconds:.3g} ms at {machine.clock_mhz:g} MHz, "
            f"{totals.energy.total_pj / 1e6:,.4g} µJ"
        )
        return Table(title, [*rows, _row("total", "", totals)])


_TITLES = (
    "step", "operator", "MACs", "cycles", "stall", "utilization", "weights B", "activations B",
    "results B", "buffers B", "energy nJ",
)  # fmt: skip


def _row(name: str, operator: str, costs: Costs) -> tuple[str, ...]:
    cycles = costs.cycles.total
    return (
        name,
        operator,
        f"{costs.multiply_accumulates:,}",
        f"{cycles:,}",
        f"{100 * costs.cycles.stall / max(1, cycles):.0f} %",
        f"{100 * costs.utilization:.1f} %",
        f"{costs.external.weights:,}",
        f"{costs.external.activations:,}",
        f"{costs.external.results:,}",
        f"{costs.buffers.total:,}",
        f"{costs.energy.total_pj / 1e3:,.1f}",
    )


@stage(__name__, "estimate")
def estimate(program: IntegerProgram, accelerator: Accelerator | str | Path) -> HardwareReport:
    """Returns what one sample of a program costs on an accelerator.

    To estimate another dataflow, pass another accelerator:
    `accelerator.model_copy(update={"dataflow": "output_stationary"})`.

    Args:
        program: the program to run.
        accelerator: the machine, the name of a preset, or a JSON file.

    Raises:
        TargetError: the operands of a step are wider than the machine's, or do not fit its buffers.
    """
    accelerator = load_accelerator(accelerator)
    steps = tuple(_estimate(program, group, accelerator) for group in fusion_groups(program))
    return HardwareReport(
        program_sha256=program.content_hash(),
        accelerator=accelerator,
        steps=steps,
        totals=_sum([found.costs for found in steps], accelerator),
    )


def _estimate(
    program: IntegerProgram, group: FusionGroup, accelerator: Accelerator
) -> StepEstimate:
    product = product_of(program, group.step, accelerator)
    if product is not None:
        tiled, costs = _product_costs(program, group, product, accelerator)
    else:
        tiled, costs = None, _lane_costs(program, group, accelerator)
    return StepEstimate(
        step=group.step.name,
        operator=group.step.operator.kind,
        fused=tuple(step.name for step in group.fused),
        costs=costs,
        tiling=None if tiled is None else tiled.tiling,
        compressed=None if tiled is None else tiled.product.pattern,
        skipped_folds=0 if tiled is None else tiled.skipped_folds,
    )


def _product_costs(
    program: IntegerProgram, group: FusionGroup, product: Product, accelerator: Accelerator
) -> tuple[TiledProduct, Costs]:
    """Returns the tiles and the costs of a convolution, a linear layer or a matrix product."""
    tiled = tile_product(program, group.step, product, accelerator)
    product, tiling = tiled.product, tiled.tiling
    work = tiled.work
    sum_bytes = -(-accelerator.accumulator_bits // 8)
    external = Traffic(
        weights=tiling.weight_bytes + constant_bytes(program, group),
        activations=tiling.activation_bytes,
        results=edge_bytes(program, group.output),
    )
    buffers = Traffic(
        weights=product.weight_bytes(work.weight_reads) + tiling.weight_bytes,
        activations=packed_bytes(product.activation, work.activation_reads)
        + tiling.activation_bytes,
        results=work.accumulator_accesses * sum_bytes,
    )
    last = (
        external.results
        * tiling.accumulator_tile_bytes
        // (sum_bytes * product.groups * product.channels_out * product.positions)
    )
    cycles = Cycles(
        load=work.load_cycles, compute=work.compute_cycles, fill_drain=work.fill_drain_cycles
    )
    first = min(tiling.weight_tile_bytes, tiling.weight_bytes) + tiling.activation_tile_bytes
    energy = accelerator.energy
    cell_pj = energy.multiply_accumulate_pj(
        accelerator.weight_bits, accelerator.activation_bits, accelerator.accumulator_bits
    )
    lanes = lane_work(program, group, accelerator)
    products = product.multiply_accumulates
    if tiled.folds is not None:
        products = tiled.folds.weights * product.positions
    costs = _costs(
        multiply_accumulates=products,
        cycles=_with_stall(cycles, external.total, first, last, accelerator),
        external=external,
        buffers=buffers,
        compute_pj=products * cell_pj + lanes.energy_pj,
        accelerator=accelerator,
    )
    return tiled, costs


def _lane_costs(program: IntegerProgram, group: FusionGroup, accelerator: Accelerator) -> Costs:
    """Returns the costs of a step without products; each byte is written to a buffer and read.

    A step without any work, such as a reshape, leaves its elements in memory where they are.
    """
    lanes = lane_work(program, group, accelerator)
    external = Traffic()
    if lanes.operations:
        external = Traffic(
            weights=constant_bytes(program, group),
            activations=sum(edge_bytes(program, name) for name in group.step.inputs),
            results=edge_bytes(program, group.output),
        )
    twice = {name: 2 * size for name, size in external.model_dump().items()}
    cycles = Cycles(compute=-(-lanes.operations // accelerator.columns))
    return _costs(
        multiply_accumulates=0,
        cycles=_with_stall(cycles, external.total, 0, 0, accelerator),
        external=external,
        buffers=Traffic(**twice),
        compute_pj=lanes.energy_pj,
        accelerator=accelerator,
    )


def _with_stall(
    cycles: Cycles, external_bytes: int, first: int, last: int, accelerator: Accelerator
) -> Cycles:
    """Adds the cycles in which the array waits; it cannot hide the bytes `first` and `last`."""
    speed = accelerator.memory_bytes_per_cycle
    alone = math.ceil(first / speed) + math.ceil(last / speed)
    hidden = math.ceil(external_bytes / speed) - alone
    stall = alone + max(0, hidden - cycles.total)
    return cycles.model_copy(update={"stall": stall})


def _costs(
    *,
    multiply_accumulates: int,
    cycles: Cycles,
    external: Traffic,
    buffers: Traffic,
    compute_pj: float,
    accelerator: Accelerator,
) -> Costs:
    return Costs(
        multiply_accumulates=multiply_accumulates,
        cycles=cycles,
        utilization=_utilization(multiply_accumulates, cycles, accelerator),
        external=external,
        buffers=buffers,
        energy=Energy(
            compute_pj=float(compute_pj),
            buffers_pj=buffers.total * accelerator.energy.buffer_byte_pj,
            external_pj=external.total * accelerator.energy.external_byte_pj,
        ),
    )


def _utilization(multiply_accumulates: int, cycles: Cycles, accelerator: Accelerator) -> float:
    return multiply_accumulates / max(1, accelerator.cells * cycles.total)


def _sum(parts: Sequence[Costs], accelerator: Accelerator) -> Costs:
    """Returns the sum of costs, field by field; the utilization is that of the whole."""
    macs = sum(part.multiply_accumulates for part in parts)
    cycles = _added(Cycles, [part.cycles for part in parts])
    return Costs(
        multiply_accumulates=macs,
        cycles=cycles,
        utilization=_utilization(macs, cycles, accelerator),
        external=_added(Traffic, [part.external for part in parts]),
        buffers=_added(Traffic, [part.buffers for part in parts]),
        energy=_added(Energy, [part.energy for part in parts]),
    )


def _added(kind: type[Part], parts: Sequence[Part]) -> Part:
    return kind(**{name: sum(getattr(part, name) for part in parts) for name in kind.model_fields})

import math

import numpy as np
import pytest
from benchmarks.random_program import random_program
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.programs import ProgramBuilder, small_program
from tests.chip.strategies import random_programs

from photomask.chip.cost.accelerator import PRESETS, Accelerator, Dataflow
from photomask.chip.cost.estimates import Cycles, HardwareReport, Traffic, estimate
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Constant, Convolution, Linear, Matmul, Reshape
from photomask.chip.program import IntegerProgram

DATAFLOWS: tuple[Dataflow, ...] = ("weight_stationary", "output_stationary", "input_stationary")
INT8 = IntFormat(bits=8, signed=True)
REFERENCE = PRESETS["reference"]
WIDE = REFERENCE.model_copy(
    update={"weight_bits": 16, "activation_bits": 16, "accumulator_bits": 64}
)
"""Takes whatever the random programs hold."""


def pointwise_program() -> IntegerProgram:
    """A 1×1 convolution from 8 to 20 channels on 5×6 positions, requantized."""
    make = ProgramBuilder()
    x = make.input("x", (1, 8, 5, 6))
    return make.build(make.requantize("y", make.convolution("conv", x, 20, kernel=1), INT8))


def test_a_layer_counted_by_hand():
    report = estimate(pointwise_program(), REFERENCE)
    (step,) = report.steps
    costs = step.costs
    assert (step.step, step.operator, step.fused) == ("conv", "convolution", ("y",))
    assert costs.multiply_accumulates == 8 * 20 * 30
    # One tile, two folds of 16 columns: 16 cycles of load, 30 of streaming, 30 of fill and drain.
    # Memory, 8 bytes a cycle: first 160 + 240 bytes of operands, last 600 bytes of results.
    first, last = 50, 75
    # 20 biases of 32 bits; multipliers of 16 and shifts of 6 bits, 2 and 5 to a 32-bit word.
    constants = 80 + 40 + 16
    hidden = math.ceil((160 + constants + 240 + 600) / 8) - first - last
    assert hidden == 17 < 2 * (16 + 30 + 30)
    assert costs.cycles == Cycles(load=32, compute=60, fill_drain=60, stall=first + last)
    assert costs.external == Traffic(weights=160 + constants, activations=240, results=600)
    # Into the weight buffer and out once; activations once for each fold; sums written and read.
    assert costs.buffers == Traffic(
        weights=160 + 160, activations=240 + 2 * 240, results=600 * 4 * 2
    )
    assert costs.utilization == 4800 / (256 * 277)
    assert costs.energy.compute_pj == pytest.approx(4800 * 0.3 + 600 * 1.8)
    assert costs.energy.buffers_pj == (320 + 720 + 4800) * 2.5
    assert costs.energy.external_pj == (296 + 240 + 600) * 162.5
    assert report.totals == costs
    assert report.milliseconds == 277 / 200_000


def test_a_slow_memory_stalls_the_array():
    slow = REFERENCE.model_copy(update={"memory_bytes_per_cycle": 0.5})
    fast = REFERENCE.model_copy(update={"memory_bytes_per_cycle": 4096.0})
    program = pointwise_program()
    assert estimate(program, slow).totals.cycles.total == (296 + 240 + 600) * 2
    assert estimate(program, fast).totals.cycles == Cycles(
        load=32, compute=60, fill_drain=60, stall=2
    )


def test_steps_without_products_run_on_the_lanes():
    program, _ = small_program()
    report = estimate(program, REFERENCE)
    found = {step.step: step for step in report.steps}
    residual = found["residual"]
    assert residual.fused == ("residual_requantize",)
    assert residual.tiling is None
    # Two operands for each of 4×6×6 results, 16 lanes; 4-bit and 8-bit operands, 8 to a word and 4.
    assert residual.costs.cycles.compute == 2 * 144 // 16
    assert residual.costs.external.activations == 144 // 2 + 144
    assert residual.costs.external.results == 144
    assert found["pool"].costs.cycles.compute == math.ceil(36 * 4 / 16)
    assert found["flatten"].costs.cycles.total == found["flatten"].costs.external.total == 0


def test_an_accumulator_that_two_steps_read_goes_to_memory():
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 4, 4))
    sums = make.convolution("conv", x, 4)
    program = make.build(make.requantize("a", sums, INT8), make.requantize("b", sums, INT8))
    conv, first, second = estimate(program, REFERENCE).steps
    assert conv.fused == first.fused == second.fused == ()
    assert conv.costs.external.results == first.costs.external.activations == 64 * 4


def check_laws(program: IntegerProgram, report: HardwareReport, accelerator: Accelerator) -> None:
    names = [name for step in report.steps for name in (step.step, *step.fused)]
    assert sorted(names) == sorted(step.name for step in program.steps)
    steps = {step.name: step for step in program.steps}
    macs = program.multiply_accumulates()
    for found in report.steps:
        costs, step = found.costs, steps[found.step]
        on_array = isinstance(step.operator, Convolution | Linear | Matmul)
        assert (found.tiling is not None) == on_array
        assert costs.multiply_accumulates == (macs.get(step.name, 0) if on_array else 0)
        assert min(costs.cycles.model_dump().values()) >= 0
        assert 0 <= costs.utilization <= 1
        assert costs.cycles.total >= costs.multiply_accumulates / accelerator.cells
        moved = accelerator.memory_bytes_per_cycle * costs.cycles.total
        assert moved >= costs.external.total
        output = program.edges[[step, *map(steps.get, found.fused)][-1].output]  # type: ignore[union-attr]
        if isinstance(step.operator, Reshape | Constant):
            assert costs.external.total == 0
            continue
        bits = math.prod(output.shape) * output.format.bits
        assert costs.external.results >= bits / 8
        if isinstance(step.operator, Convolution | Linear):
            weight = program.tensors[step.tensors["weight"]]
            format = program.formats[step.tensors["weight"]]
            assert costs.external.weights >= weight.size * format.bits / 8
    total = report.totals
    assert total.cycles.total == sum(step.costs.cycles.total for step in report.steps)
    assert total.external.total == sum(step.costs.external.total for step in report.steps)
    assert total.energy.total_pj == pytest.approx(
        sum(step.costs.energy.total_pj for step in report.steps)
    )


@settings(max_examples=60)
@given(random_programs(), st.sampled_from(DATAFLOWS), st.sampled_from([0.25, 8.0, 1000.0]))
def test_what_holds_for_every_program(program: IntegerProgram, dataflow: Dataflow, speed: float):
    accelerator = WIDE.model_copy(update={"dataflow": dataflow, "memory_bytes_per_cycle": speed})
    report = estimate(program, accelerator)
    check_laws(program, report, accelerator)
    assert HardwareReport.parse(report.render(), "report") == report
    faster = accelerator.model_copy(update={"memory_bytes_per_cycle": 2 * speed})
    assert estimate(program, faster).totals.cycles.total <= report.totals.cycles.total


def test_energy_is_the_table_times_what_is_counted():
    program = random_program(5)
    base = estimate(program, WIDE).totals
    table = WIDE.energy.model_copy(update={"external_byte_pj": 1000.0, "buffer_byte_pj": 0.5})
    other = estimate(program, WIDE.model_copy(update={"energy": table})).totals
    assert other.energy.external_pj == base.external.total * 1000.0
    assert other.energy.buffers_pj == base.buffers.total * 0.5
    assert other.energy.compute_pj == base.energy.compute_pj
    assert other.cycles == base.cycles


def test_the_table_has_every_step_and_the_total():
    program, _ = small_program()
    report = estimate(program, REFERENCE)
    lines = str(report).splitlines()
    assert lines[0].startswith("estimate for accelerator 'reference', 16×16, weight stationary: ")
    assert [line.split()[0] for line in lines[1:]] == [
        "step",
        *(step.step for step in report.steps),
        "total",
    ]
    assert f"{report.totals.cycles.total:,}" in lines[-1]


def test_depthwise_convolutions_leave_an_array_almost_empty():
    make = ProgramBuilder()
    x = make.input("x", (1, 32, 14, 14))
    weight = make.random.integers(-128, 128, (32, 1, 3, 3))
    depthwise = Convolution(
        stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=32, padding_value=0
    )
    sums = make.step(
        "depthwise",
        depthwise,
        [x],
        {"weight": weight, "bias": np.zeros(32, dtype=np.int64)},
        {"weight": INT8, "bias": IntFormat(bits=32, signed=True)},
    )
    (step,) = estimate(make.build(make.requantize("y", sums, INT8)), REFERENCE).steps
    # One channel a fold: 9 of 16 rows, 1 of 16 columns, 196 of 196 + 46 cycles.
    array = step.costs.cycles.total - step.costs.cycles.stall
    assert array == 32 * (196 + 46)
    assert step.costs.utilization <= 9 / 256

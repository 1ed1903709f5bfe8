"""The formulas beside arrays that are simulated register by register."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.cost.accelerator import PRESETS, Accelerator, Dataflow
from photomask.chip.cost.dataflow import ArrayWork, Folding, array_work

sizes = st.integers(1, 7)


def machine(rows: int, columns: int, dataflow: Dataflow) -> Accelerator:
    update = {"rows": rows, "columns": columns, "dataflow": dataflow}
    return PRESETS["reference"].model_copy(update=update)


def one_tile(reduction: int, outputs: int, pixels: int, machine: Accelerator) -> ArrayWork:
    """The work of a product that is one tile."""
    rows, columns = machine.rows, machine.columns
    folding = Folding(
        reduction=reduction,
        held=reduction,
        reduction_tiles=1,
        reduction_row_folds=-(-reduction // rows),
        outputs=outputs,
        output_tiles=1,
        output_column_folds=-(-outputs // columns),
        pixels=pixels,
        pixel_tiles=1,
        pixel_row_folds=-(-pixels // rows),
        pixel_column_folds=-(-pixels // columns),
    )
    return array_work(folding, 1, machine)


def skewed(values: np.ndarray, cycle: int) -> np.ndarray:
    """What enters each lane at a cycle: lane `n` is `n` cycles late. `values` [lanes, time]."""
    lanes, time = values.shape
    entering = np.zeros(lanes, dtype=np.int64)
    for lane in range(lanes):
        if 0 <= cycle - lane < time:
            entering[lane] = values[lane, cycle - lane]
    return entering


def stationary_array(held: np.ndarray, stream: np.ndarray) -> tuple[np.ndarray, int]:
    """Operands stay, values stream from the left, sums move down.

    Args:
        held: [rows, columns].
        stream: [rows, time].

    Returns:
        `held.T @ stream` and the cycles until the last sum has left.
    """
    rows, columns = held.shape
    time = stream.shape[1]
    cells = np.zeros((rows, columns), dtype=np.int64)
    cycles = 0
    for row in range(rows):
        # A row of operands enters at the top, those before it move down.
        cells = np.vstack([held[rows - 1 - row], cells[:-1]])
        cycles += 1
    values = np.zeros((rows, columns), dtype=np.int64)
    sums = np.zeros((rows, columns), dtype=np.int64)
    result = np.zeros((columns, time), dtype=np.int64)
    left, cycle = 0, 0
    while left < columns * time:
        values = np.hstack([skewed(stream, cycle)[:, None], values[:, :-1]])
        above = np.vstack([np.zeros((1, columns), dtype=np.int64), sums[:-1]])
        sums = above + cells * values
        for column in range(columns):
            # The first value reaches the last row of a column after rows - 1 + column cycles.
            at = cycle - (rows - 1) - column
            if 0 <= at < time:
                result[column, at] = sums[-1, column]
                left += 1
        cycle += 1
    return result, cycles + cycle


def output_array(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, int]:
    """Sums stay; one operand streams from the left, the other from the top; sums shift out.

    Args:
        first: [rows, time].
        second: [columns, time].

    Returns:
        `first @ second.T` and the cycles until the last sum has left.
    """
    rows, columns = len(first), len(second)
    time = first.shape[1]
    right = np.zeros((rows, columns), dtype=np.int64)
    down = np.zeros((rows, columns), dtype=np.int64)
    sums = np.zeros((rows, columns), dtype=np.int64)
    done = np.zeros((rows, columns), dtype=np.int64)
    cycle = 0
    while (done < time).any():
        right = np.hstack([skewed(first, cycle)[:, None], right[:, :-1]])
        down = np.vstack([skewed(second, cycle)[None], down[:-1]])
        sums += right * down
        at = cycle - np.arange(rows)[:, None] - np.arange(columns)
        done += (at >= 0) & (at < time)
        cycle += 1
    out = []
    for _ in range(rows):
        out.append(sums[-1].copy())
        sums = np.vstack([np.zeros((1, columns), dtype=np.int64), sums[:-1]])
        cycle += 1
    return np.array(out[::-1]), cycle


@given(sizes, sizes, st.integers(1, 9), st.integers(0, 9999))
def test_a_fold_with_stationary_operands_takes_the_formula_s_cycles(
    rows: int, columns: int, time: int, seed: int
):
    random = np.random.default_rng(seed)
    held = random.integers(-128, 128, (rows, columns))
    stream = random.integers(-128, 128, (rows, time))
    result, cycles = stationary_array(held, stream)
    assert np.array_equal(result, held.T @ stream)
    weights = one_tile(rows, columns, time, machine(rows, columns, "weight_stationary"))
    assert weights.cycles == cycles == 2 * rows + columns + time - 2
    assert (weights.weight_reads, weights.activation_reads) == (held.size, stream.size)
    inputs = one_tile(rows, time, columns, machine(rows, columns, "input_stationary"))
    assert inputs.cycles == cycles
    assert (inputs.activation_reads, inputs.weight_reads) == (held.size, stream.size)
    assert inputs.accumulator_accesses == weights.accumulator_accesses == 2 * result.size


@given(sizes, sizes, st.integers(1, 9), st.integers(0, 9999))
def test_a_fold_with_stationary_sums_takes_the_formula_s_cycles(
    rows: int, columns: int, time: int, seed: int
):
    random = np.random.default_rng(seed)
    first = random.integers(-128, 128, (rows, time))
    second = random.integers(-128, 128, (columns, time))
    result, cycles = output_array(first, second)
    assert np.array_equal(result, first @ second.T)
    work = one_tile(time, columns, rows, machine(rows, columns, "output_stationary"))
    assert work.cycles == cycles == 2 * rows + columns + time - 2
    assert (work.activation_reads, work.weight_reads) == (first.size, second.size)
    assert work.accumulator_accesses == 2 * result.size


@pytest.mark.parametrize(
    ("dataflow", "load", "compute", "fill_drain", "weights", "activations", "sums"),
    [
        # 3 × 2 folds of 4 cycles of load and 10 of skew (4 + 8 - 2); 20 pixels each.
        ("weight_stationary", 24, 120, 60, 9 * 10, 9 * 20 * 2, 10 * 20 * 2 * 3),
        # 5 × 2 folds of 9 products each, whose sums shift out in 4 more cycles.
        ("output_stationary", 0, 90, 140, 9 * 10 * 5, 9 * 20 * 2, 10 * 20 * 2),
        # 3 × 3 folds of 10 outputs each.
        ("input_stationary", 36, 90, 90, 9 * 10 * 3, 9 * 20, 10 * 20 * 2 * 3),
    ],
)
def test_folds_counted_by_hand(
    dataflow: Dataflow,
    load: int,
    compute: int,
    fill_drain: int,
    weights: int,
    activations: int,
    sums: int,
):
    work = one_tile(9, 10, 20, machine(4, 8, dataflow))
    assert (work.load_cycles, work.compute_cycles, work.fill_drain_cycles) == (
        load,
        compute,
        fill_drain,
    )
    assert (work.weight_reads, work.activation_reads) == (weights, activations)
    assert work.accumulator_accesses == sums

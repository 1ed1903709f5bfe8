"""Folds of zeros and compressed weights, counted one by one."""

import json
import math
from itertools import product as combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.cost.tiling_cases import machines, products
from tests.chip.programs import ProgramBuilder

from photomask.chip.cost import estimate, tile
from photomask.chip.cost.accelerator import PRESETS, Accelerator, load_accelerator
from photomask.chip.cost.dataflow import WeightFolds
from photomask.chip.cost.products import Product, packed_bytes
from photomask.chip.cost.tile_search import search
from photomask.chip.cost.tiling import Tiling
from photomask.chip.cost.zero_folds import occupied_folds
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Convolution
from photomask.chip.program import IntegerProgram
from photomask.chip.sparsity import NofM
from photomask.errors import DocumentError, TargetError

INT8, INT32 = IntFormat(bits=8, signed=True), IntFormat(bits=32, signed=True)
PATTERN = NofM(kept=2, group=3)
EIGHT = PRESETS["reference"].model_copy(update={"rows": 8, "columns": 8})
TWO_OF_FOUR = EIGHT.model_copy(update={"sparse": NofM(kept=2, group=4)})


def parts(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def terms_of(product: Product, part) -> list[tuple[int, list[int]]]:
    """The rows of a tile: the kernel position, and the inputs that a row reads."""
    taps = [
        y * product.columns.kernel + x
        for y, x in combinations(part.kernel_rows, part.kernel_columns)
    ]
    if product.pattern is None:
        return [(tap, [i]) for tap in taps for i in part.channels_in]
    groups = parts(list(part.channels_in), product.pattern.group)
    return [(tap, group) for tap in taps for group in groups for _ in range(product.pattern.kept)]


def counted(weight: np.ndarray, product: Product, tiling: Tiling, machine: Accelerator):
    """Walks over all tiles, folds, outputs and rows, for one tile of pixels."""
    loaded = streamed = weights = inputs = sums = stored = 0
    one = tiling.model_copy(
        update={"whole": tiling.whole.model_copy(update={"rows": 1, "columns": 1})}
    )
    blocks: dict[tuple, bool] = {}
    for part in one.tiles():
        held = 0
        for outputs in parts(list(part.channels_out), machine.columns):
            block = (part.group, *outputs)
            blocks.setdefault(block, False)
            for rows in parts(terms_of(product, part), machine.rows):
                group = part.group % len(weight)
                if not any(
                    weight[group, o, i, tap] for o in outputs for tap, of in rows for i in of
                ):
                    continue
                blocks[block] = True
                loaded += 1
                held += len(outputs) * len(rows)
                read = {(tap, i) for tap, of in rows for i in of}
                inputs += len(read)
                sums += len(outputs)
        weights += held
        stored += packed_bytes(product.weight, held)
        if product.pattern is not None:
            bits = held // product.pattern.kept * product.pattern.index_bits
            words = math.ceil(bits / product.weight.word_bits)
            stored += math.ceil(words * product.weight.word_bits / 8)
    empty = [block for block, used in blocks.items() if not used]
    streamed = loaded + len(empty)
    sums += sum(len(block) - 1 for block in empty)
    return WeightFolds(loaded, streamed, weights, inputs, sums), stored


@given(products, machines, st.sampled_from([None, PATTERN]), st.integers(0, 9999), st.floats(0, 1))
def test_folds_are_those_that_a_walk_over_all_rows_finds(product, machine, pattern, seed, zeros):
    rows = 2 * machine.rows if pattern else machine.rows
    update = {"rows": rows, "sparse": pattern, "dataflow": "weight_stationary"}
    machine = machine.model_copy(update=update)
    product = Product(**vars(product) | {"pattern": pattern})
    random = np.random.default_rng(seed)
    shape = (product.groups, product.channels_out, product.channels_in, product.taps)
    weight = random.integers(-9, 10, shape) * (random.random(shape) >= zeros)
    choice = search(product, machine)
    if choice is None:  # a group does not fit the smallest buffers
        return
    tiling = Tiling.of("step", product, choice)
    found = occupied_folds(weight, product, choice, machine)
    assert (found.folds, found.weight_bytes) == counted(weight, product, tiling, machine)
    every = occupied_folds(np.ones(shape, np.int64), product, choice, machine)
    assert every.folds == WeightFolds.without_zeros(choice.folding, product.groups)
    assert every.weight_bytes * choice.weight_readings == choice.weight_bytes


def layer(weight: np.ndarray) -> IntegerProgram:
    """A 1×1 convolution on 5×6 positions, requantized."""
    make = ProgramBuilder()
    x = make.input("x", (1, weight.shape[1], 5, 6))
    operator = Convolution(
        stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1, padding_value=0
    )
    tensors = {"weight": weight[..., None, None], "bias": np.arange(len(weight))}
    sums = make.step("conv", operator, [x], tensors, {"weight": INT8, "bias": INT32})
    return make.build(make.requantize("y", sums, INT8))


def test_compressed_weights_counted_by_hand():
    weight = np.zeros((8, 16), dtype=np.int64)
    weight[:, ::2] = 3
    assert "8×8 for 2:4, weight stationary" in str(estimate(layer(weight), TWO_OF_FOUR))
    dense, sparse = (estimate(layer(weight), one).steps[0] for one in (EIGHT, TWO_OF_FOUR))
    assert (dense.compressed, sparse.compressed) == (None, NofM(kept=2, group=4))
    # Two folds of 8 inputs: 8 cycles to load, 30 positions, 14 to fill and drain.
    one = dense.costs.cycles
    assert (one.load, one.compute, one.fill_drain) == (16, 60, 28)
    # One fold of four groups of four inputs: 4 cycles to load, 10 to fill and drain.
    one = sparse.costs.cycles
    assert (one.load, one.compute, one.fill_drain) == (4, 30, 10)
    assert sparse.costs.multiply_accumulates == 8 * 8 * 30 == dense.costs.multiply_accumulates // 2
    # 64 weights of a byte, and the numbers of 32 patterns with three bits each.
    constants = 8 * 4 + 4 * 4 + 2 * 4
    assert dense.costs.external.weights == 128 + constants
    assert sparse.costs.external.weights == 64 + 12 + constants
    assert sparse.costs.buffers.weights == 2 * (64 + 12)
    assert sparse.costs.buffers.results == 8 * 30 * 2 * 4 == dense.costs.buffers.results // 2


def test_folds_of_zeros_cost_nothing_and_outputs_without_weights_one_pass():
    weight = np.ones((24, 16), dtype=np.int64)
    whole = estimate(layer(weight), EIGHT).steps[0]
    weight[:8, 8:] = 0
    weight[8:16] = 0
    found = estimate(layer(weight), EIGHT).steps[0]
    assert (whole.skipped_folds, found.skipped_folds) == (0, 3)
    # Three of six folds are loaded; a fourth pass writes the biases of eight outputs.
    cycles = found.costs.cycles
    assert (cycles.load, cycles.compute, cycles.fill_drain) == (3 * 8, 4 * 30, 4 * 14)
    assert found.costs.multiply_accumulates == 3 * 64 * 30
    saved = whole.costs.external.weights - found.costs.external.weights
    assert saved == 3 * 64
    assert found.tiling is not None
    assert tile(layer(weight), EIGHT)["conv"].weight_bytes == found.tiling.weight_bytes == 3 * 64
    assert found.costs.buffers.activations == 16 * 30 + 3 * 8 * 30
    assert found.costs.buffers.results == (4 * 8 * 30) * 2 * 4
    assert found.costs.energy.total_pj < whole.costs.energy.total_pj


def test_a_layer_without_weights_takes_one_pass_for_each_block_of_outputs():
    step = estimate(layer(np.zeros((20, 16), dtype=np.int64)), EIGHT).steps[0]
    assert (step.costs.multiply_accumulates, step.costs.utilization) == (0, 0)
    assert (step.costs.cycles.load, step.costs.cycles.compute) == (0, 3 * 30)
    assert step.costs.energy.compute_pj > 0  # results are still rescaled


def test_other_dataflows_stream_the_zeros():
    zeros, ones = (layer(np.full((20, 16), value)) for value in (0, 1))
    for dataflow in ("output_stationary", "input_stationary"):
        machine = EIGHT.model_copy(update={"dataflow": dataflow})
        assert estimate(zeros, machine).steps == estimate(ones, machine).steps


def test_a_layer_that_breaks_the_pattern_runs_dense():
    weight = np.zeros((8, 16), dtype=np.int64)
    weight[:, ::2] = 3
    weight[7, 1] = 1
    step = estimate(layer(weight), TWO_OF_FOUR).steps[0]
    assert step.compressed is None
    cycles = step.costs.cycles
    # The rows of a group load and compute together, so there are four rows of cells.
    assert (cycles.load, cycles.compute, cycles.fill_drain) == (2 * 4, 60, 2 * 10)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"rows": 7}, "7 rows cannot hold the pattern 2:4: the rows must be a multiple of N"),
        ({"dataflow": "output_stationary"}, "only an array that is weight_stationary"),
        ({"sparse": {"kept": 4, "group": 4}}, "keeps 4:4 inputs is dense"),
        ({"sparse": {"kept": 5, "group": 4}}, "N must be at most M"),
    ],
)
def test_patterns_that_do_not_fit_the_array_are_refused(update, message, tmp_path):
    document = json.loads(TWO_OF_FOUR.render()) | update
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DocumentError, match=message):
        load_accelerator(path)


@pytest.mark.parametrize("use", [estimate, tile])
def test_a_copy_whose_pattern_does_not_fit_is_refused(use):
    changed = TWO_OF_FOUR.model_copy(update={"rows": 7})
    with pytest.raises(TargetError, match="'reference': 7 rows cannot hold the pattern 2:4"):
        use(layer(np.ones((8, 16), dtype=np.int64)), changed)


def test_a_dense_accelerator_has_no_field_for_a_pattern():
    assert "sparse" not in EIGHT.render()
    assert Accelerator.parse(TWO_OF_FOUR.render(), "machine") == TWO_OF_FOUR

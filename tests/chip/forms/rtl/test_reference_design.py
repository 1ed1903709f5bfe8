"""The model and the reference RTL: what they agree on, and what the documentation says differs."""

import pytest
from tests.chip.forms.rtl.sparse_programs import SparseProgram, with_n_of_m, with_zero_blocks
from tests.chip.programs import ProgramBuilder

from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.estimates import estimate
from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.synthesis import lint, rtl_sources, synthesize
from photomask.chip.sparsity import NofM

INT8 = IntFormat(bits=8, signed=True)
REFERENCE = PRESETS["reference"]


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "size", "kernel"),
    [(16, 16, 8, 3), (32, 16, 6, 3), (16, 40, 10, 1), (48, 32, 5, 1)],
)
def test_a_descriptor_of_the_rtl_takes_eight_cycles_more_than_a_fold(
    channels_in: int, channels_out: int, size: int, kernel: int
):
    make = ProgramBuilder()
    x = make.input("x", (1, channels_in, size, size))
    sums = make.convolution("conv", x, channels_out, kernel=kernel)
    program = make.build(make.requantize("y", sums, INT8))
    cycles = estimate(program, REFERENCE).steps[0].costs.cycles
    folds = channels_in // 16 * -(-channels_out // 16) * kernel**2
    assert cycles.load == 16 * folds, "one tile of positions, so that each fold is a descriptor"
    counted = model_cycles(program, REFERENCE)["conv"]
    assert counted == cycles.total - cycles.stall + 8 * folds


@pytest.mark.parametrize("sparse", [None, NofM(kept=2, group=4)])
def test_zeros_save_the_same_folds_in_the_model_as_in_the_rtl(sparse: NofM | None):
    machine = REFERENCE.model_copy(update={"rows": 8, "columns": 8, "sparse": sparse})
    make = SparseProgram()
    dense = make.random.integers(1, 60, (24, 16, 3, 3))
    weight = with_zero_blocks(make.random, dense, 16, 8, 0.4)
    if sparse is not None:
        weight = with_n_of_m(make.random, weight, 2, 4)
    weight[8:16] = 0
    x = make.input("x", (1, 16, 6, 6))
    program = make.build(make.layer("conv", x, weight))
    step = estimate(program, machine).steps[0]
    groups = 8 if sparse is None else 4
    loads = step.costs.cycles.load // groups
    assert step.skipped_folds > 0
    assert step.compressed == sparse
    # One more pass writes the biases of the outputs without weights.
    array = step.costs.cycles.total - step.costs.cycles.stall
    assert model_cycles(program, machine)["conv"] == array + 8 * (loads + 1)


def test_the_reference_design_is_lint_clean():
    assert lint(rtl_sources(), "reference_design").warnings == ()


def test_units_of_the_reference_design_synthesize():
    sizes = {"ROWS": 2, "COLUMNS": 2, "LANES": 2, "DEPTH": 256}
    report = synthesize(rtl_sources(), ["systolic_array", "sequencer", "memory_bank"], sizes)
    array, sequencer, bank = report.units
    # Each of four cells holds a weight, loaded on demand, and a sum of at least 17 bits.
    assert array.cells["$_DFFE_PP_"] == 4 * 8
    assert array.flip_flops >= 4 * (8 + 17)
    assert array.gates > 4 * 8 * 9
    assert array.memory_bits == sequencer.memory_bits == 0
    assert bank.memory_bits == 256 * 2 * 8


def test_units_of_a_sparse_design_synthesize():
    sizes = {"ROWS": 2, "COLUMNS": 2, "KEPT": 2, "GROUP": 4}
    array, loader = synthesize(rtl_sources(), ["systolic_array", "weight_loader"], sizes).units
    # Each of four weights has a position of two bits.
    assert array.cells["$_DFFE_PP_"] == 4 * (8 + 2)
    # One row of a TILE is held back, and one bit counts its rows.
    assert loader.flip_flops == 2 * 8 + 1
    assert array.memory_bits == loader.memory_bits == 0


def test_the_row_unit_synthesizes_without_a_memory():
    sizes = {"LANES": 2, "ROOT_BITS": 4, "DIVISOR_BITS": 8}
    report = synthesize(rtl_sources(), ["reciprocal_unit", "square_root_unit", "row_unit"], sizes)
    divider, root, rows = report.units
    # A quotient, a remainder of a bit more, six bits of position, and whether it runs.
    assert divider.flip_flops == 8 + 9 + 6 + 1
    # The radicand, the root, a remainder, what is left, and whether it runs.
    assert root.flip_flops == 8 + 4 + 4 + 3 + 1
    assert rows.gates > 10_000
    assert rows.memory_bits == 0

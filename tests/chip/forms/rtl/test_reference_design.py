"""The model and the reference RTL: what they agree on, and what the documentation says differs."""

import pytest
from tests.chip.programs import ProgramBuilder

from photomask.chip.cost.accelerator import PRESETS
from photomask.chip.cost.estimates import estimate
from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.synthesis import lint, rtl_sources, synthesize

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

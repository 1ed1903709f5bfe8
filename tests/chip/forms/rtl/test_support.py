"""What the reference design cannot run is refused before anything is written, with the reasons."""

from pathlib import Path

import numpy as np
import pytest
from tests.chip.forms.rtl.rtl_programs import INT8, machine
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip import export
from photomask.chip.cost.accelerator import PRESETS, Accelerator
from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.lowering import lower, support_report
from photomask.chip.operators import Clamp, Linear, Matmul, Sum
from photomask.errors import FormError, PhotomaskError, TargetError


def test_every_step_that_cannot_run_is_named_with_its_reason():
    make = ProgramBuilder()
    x = make.input("x", (1, 3, 4, 5))
    wide = make.input("wide", (1, 3, 5, 4), bits=16)
    make.step("product", Matmul(zero_points=(0, 0), terms=5), [x, wide])
    make.step("first", Matmul(zero_points=(0, 0), terms=4), [wide, x])
    every_other = Sum(axes=(2, 4), keep_axes=True, zero_point=0, terms=8)
    make.step("sum", every_other, [make.input("y", (1, 3, 4, 3, 2))])
    make.step("linear", Linear(), [x], *linear_tensors(make, 4, 5))
    make.step("clamp", Clamp(low=0, high=9), [x], format=INT8)
    program = make.build("product", "first", "sum", "linear", "clamp")
    report = support_report(program, PRESETS["reference"])
    assert [step.reason is None for step in report.steps] == [False, False, False, True, True]
    assert not report.runs
    assert "alternates between summed and kept axes" in str(report)
    with pytest.raises(FormError) as raised:
        lower(program, PRESETS["reference"])
    message = str(raised.value)
    assert "cannot express 3 of the program's steps" in message
    assert "its second factor reaches from -32768 to 32767" in message
    assert "its first factor minus the zero point reaches from -32768" in message
    assert all(name in message for name in ("'product'", "'first'", "'sum'", "model.py:1"))


def linear_tensors(make: ProgramBuilder, outputs: int, inputs: int):
    return (
        {
            "weight": make.random.integers(-128, 128, (outputs, inputs)),
            "bias": np.zeros(outputs, dtype=np.int64),
        },
        {"weight": INT8, "bias": IntFormat(bits=32, signed=True)},
    )


@pytest.mark.parametrize(
    ("accelerator", "error", "reason"),
    [
        (machine(4, 4, weight_bits=4), FormError, "signed 4-bit weights"),
        (machine(4, 4, activation_bits=4), FormError, "multiplies 4-bit activations"),
        (machine(4, 4, accumulator_bits=16), FormError, "accumulators have only 16 bits"),
        (PRESETS["output_stationary"], TargetError, "weight stationary"),
        (machine(16, 17), TargetError, "at most 256 lanes"),
        (machine(4, 4, activation_bits=32), TargetError, "wider than the activations"),
    ],
    ids=lambda value: value.name if isinstance(value, Accelerator) else "",
)
def test_a_machine_too_narrow_for_a_program_is_refused(
    accelerator: Accelerator, error: type[PhotomaskError], reason: str, tmp_path: Path
):
    program, codes = small_program(batch=1)
    with pytest.raises(error, match=reason):
        export(program, tmp_path / "rtl", codes, form=RtlForm(accelerator=accelerator))
    assert not (tmp_path / "rtl").exists()


@pytest.mark.parametrize(
    ("zero_point", "low", "runs"), [(0, 0, False), (1, 0, True), (3, 0, True), (0, -1, True)]
)
def test_a_factor_of_one_bit_runs_where_minus_one_and_zero_make_it_up(
    zero_point: int, low: int, runs: bool
):
    make = ProgramBuilder()
    a, b = make.input("a", (1, 3, 4)), make.input("b", (1, 4, 2), bits=1, signed=low < 0)
    program = make.build(make.step("p", Matmul(zero_points=(0, zero_point), terms=4), [a, b]))
    (step,) = support_report(program, machine(4, 4, weight_bits=1)).steps
    assert (step.reason is None) == runs
    assert runs or "signed 1-bit weights" in str(step.reason)

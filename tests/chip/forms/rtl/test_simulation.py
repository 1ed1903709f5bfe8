"""What the RTL computes in Verilator is what the oracle computes, on every edge."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.random_program import random_codes, random_program
from tests.chip.forms.rtl.rtl_programs import NARROW, WIDE, every_operator, machine, parameters
from tests.chip.forms.rtl.simulated import run
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip import export
from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl import simulator as simulator_module
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.files import file_records
from photomask.chip.forms.rtl.lowering import support_report
from photomask.chip.forms.rtl.simulation import compare_outputs, simulate, sources_in
from photomask.chip.forms.rtl.simulation_report import SimulationReport
from photomask.chip.forms.rtl.simulator import build, verilator_command
from photomask.chip.operators import OPERATORS, Requantize
from photomask.chip.target import Rounding
from photomask.errors import (
    DocumentError,
    EngineError,
    ExportError,
    MissingDependencyError,
)

KINDS = {operator.model_fields["kind"].default for operator in OPERATORS}
ONE_CYCLE_ARRAY = """
// Not systolic: all products at once, sums one cycle later. The weights wait in one long row.
module systolic_array #(
    parameter int ROWS = 16,
    parameter int COLUMNS = 16,
    parameter int WEIGHT_BITS = 8,
    parameter int ACTIVATION_BITS = 8,
    parameter int ACCUMULATOR_BITS = 32,
    parameter int KEPT = 1,
    parameter int GROUP = 1
) (
    input  logic                                clock,
    input  logic                                reset,
    input  logic                                weight_valid,
    input  logic [     COLUMNS*WEIGHT_BITS-1:0] weights,
    input  logic [                 COLUMNS-1:0] positions,
    input  logic                                activation_valid,
    input  logic [ROWS*(ACTIVATION_BITS+1)-1:0] activations,
    output logic                                sum_valid,
    output logic [COLUMNS*ACCUMULATOR_BITS-1:0] sums
);
  logic [ROWS*COLUMNS*WEIGHT_BITS-1:0] held;
  logic [COLUMNS*ACCUMULATOR_BITS-1:0] total;

  always_comb begin
    total = '0;
    for (int r = 0; r < ROWS; r++)
      for (int c = 0; c < COLUMNS; c++)
        total[c*ACCUMULATOR_BITS+:ACCUMULATOR_BITS] =
            total[c*ACCUMULATOR_BITS+:ACCUMULATOR_BITS]
            + ACCUMULATOR_BITS'($signed(held[(r*COLUMNS+c)*WEIGHT_BITS+:WEIGHT_BITS]))
            * ACCUMULATOR_BITS'($signed(activations[r*(ACTIVATION_BITS+1)+:ACTIVATION_BITS+1]));
  end

  always_ff @(posedge clock) begin
    if (weight_valid) held <= (ROWS * COLUMNS * WEIGHT_BITS)'({held, weights});
    sums <= total;
    sum_valid <= activation_valid && !reset && !$test$plusargs("silent");
  end
endmodule
"""


@pytest.mark.parametrize("accelerator", [NARROW, WIDE], ids=lambda a: a.name)
def test_every_operator_is_exact(accelerator, build_once, tmp_path):
    program, codes = every_operator()
    report = run(program, codes, tmp_path / "rtl", accelerator, build_once(accelerator))
    assert {layer.operator for layer in report.layers} == KINDS
    computed = [step.output for step in program.steps if step.operator.kind != "constant"]
    sizes = [int(np.prod(program.edges[name].shape)) for name in computed]
    assert report.integers == len(codes["x"]) * sum(sizes)


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_random_programs_are_exact(first: int, build_once, tmp_path):
    simulator, ran = build_once(WIDE), 0
    for seed in range(first, first + 30):
        program = random_program(seed)
        if support_report(program, WIDE).runs:
            run(program, random_codes(program, 1, seed), tmp_path / "rtl", WIDE, simulator)
            ran += 1
    assert ran >= 25


@pytest.mark.parametrize("rounding", Rounding)
def test_every_rounding_is_exact_on_ties_and_extremes(rounding, build_once, tmp_path):
    shifts = np.array([0, 1, 2, 24, 30, 31, 32, 33, 47, 62]).repeat(3)
    multipliers = np.tile([1, 1 << 14, (1 << 15) - 1], 10)
    make = ProgramBuilder()
    bits = 48
    x = make.input("x", (1, len(shifts), 12, 4), bits=bits)
    wide = IntFormat(bits=bits, signed=True)
    make.step(
        "y",
        Requantize(rounding=rounding, offset=0, zero_point=0, low=wide.low // 2, high=wide.high),
        [x],
        {"multiplier": multipliers.reshape(-1, 1, 1), "shift": shifts.reshape(-1, 1, 1)},
        {
            "multiplier": IntFormat(bits=15, signed=False),
            "shift": IntFormat(bits=6, signed=False),
        },
        format=wide,
    )
    rng, codes = make.random, make.codes(1)["x"]
    codes[:, :, 0] = rng.integers(-8, 8, codes[:, :, 0].shape)
    # With the multiplier 1 these are ties: odd multiples of one half.
    halves = np.int64(1) << np.clip(shifts - 1, 0, 40)
    codes[:, :, 1:3] = (2 * rng.integers(-9, 9, codes[:, :, 1:3].shape) + 1) * halves.reshape(
        1, -1, 1, 1
    ).clip(max=1 << 42)
    codes[:, :, 3, 0], codes[:, :, 3, 1] = wide.low, wide.high
    run(make.build("y"), codes, tmp_path / "rtl", WIDE, build_once(WIDE))


def test_what_a_mismatch_says(build_once, tmp_path):
    program, codes = every_operator()
    folder = tmp_path / "rtl"
    design = export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    step = next(step for step in design.steps if step.name == "half_up")
    path = folder / "golden" / "1" / f"step_{step.number}.hex"
    lines = path.read_text().splitlines()
    lines[45] = f"{int(lines[45], 16) ^ 0x100:08x}"
    path.write_text("\n".join(lines) + "\n")
    forged = design.model_copy(update={"files": file_records(folder)}).sealed()
    (folder / "design.json").write_text(forged.render())
    report = simulate(folder, simulator=build_once(NARROW))
    assert not report.passed
    assert report.mismatches == 1
    first = report.first_mismatch
    assert first is not None
    assert (first.sample, first.step, first.tile) == (1, "half_up", "channels 4 to 7")
    # Word 45 is the fourth position of the second block of channels, 0x100 is lane 1.
    assert (first.coordinate, first.lane) == ((0, 5, 0, 3), 1)
    assert first.address == step.place.address + 45
    assert abs(first.expected - first.got) == 1
    assert "step 'half_up' (model.py:1), channels 4 to 7: element [0, 5, 0, 3]" in str(report)
    assert SimulationReport.parse(report.render(), "report") == report


@pytest.mark.parametrize(
    ("cycles", "error", "named"),
    [
        ("", EngineError, "ends with 'no line'"),
        ("0 5\n\n", EngineError, "did not finish"),
        ("0\ntotal 5\n", DocumentError, r"cycles\.txt holds '0', expected a step"),
        ("0 x\ntotal 5\n", DocumentError, "holds '0 x'"),
        ("0 5 5\ntotal 5\n", DocumentError, "holds '0 5 5'"),
        ("0 " + "1" * 5000 + "\ntotal 5\n", DocumentError, "holds '0 1111"),
        ("total 5\n", EngineError, "without completing step"),
    ],
)
def test_cycles_that_no_testbench_writes_are_refused(tmp_path, cycles, error, named):
    program, codes = small_program(batch=1)
    design = export(program, tmp_path / "rtl", codes, form=RtlForm())
    outputs = tmp_path / "rtl" / "golden" / "0"
    (outputs / "cycles.txt").write_text(cycles)
    with pytest.raises(error, match=named):
        compare_outputs(tmp_path / "rtl", design, [outputs], "simulator")


@pytest.mark.parametrize(
    "change", [{"shape": (1, 1)}, {"shape": (1, -2, -6, 6)}, {"place": {"inner": 0}}]
)
def test_a_step_that_does_not_fill_its_place_is_refused(tmp_path, change):
    program, codes = small_program(batch=1)
    design = export(program, tmp_path / "rtl", codes, form=RtlForm())
    body = design.model_dump(mode="json")
    body["steps"][0]["place"] |= change.pop("place", {})
    body["steps"][0] |= change
    with pytest.raises(DocumentError, match=r"field steps\.0"):
        RtlDesign.parse(json.dumps(body), "design.json")


def test_another_array_takes_the_place_of_ours(tmp_path):
    program, codes = small_program(batch=1)
    folder = tmp_path / "rtl"
    accelerator = machine(4, 4)
    export(program, folder, codes, form=RtlForm(accelerator=accelerator))
    (folder / "rtl" / "systolic_array.sv").write_text(ONE_CYCLE_ARRAY)
    simulator = build(
        sources_in(folder / "rtl"), parameters(accelerator), tmp_path / "build", optimize=False
    )
    report = simulate(folder, simulator=simulator)
    assert report.passed
    assert report.rounding_proven
    assert report.changed_files == ("rtl/systolic_array.sv (changed)",)
    assert "changed since the export: rtl/systolic_array.sv (changed)" in str(report)
    assert report.rtl_cycles < report.model_cycles
    with pytest.raises(EngineError, match="did not finish"):
        simulate(folder, simulator=replace(simulator, arguments=("+silent",)))


def test_cocotb_runs_an_export(tmp_path, monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "VM_PARALLEL_BUILDS=0 OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
    program, codes = small_program(batch=2)
    folder = tmp_path / "rtl"
    export(program, folder, codes, form=RtlForm(accelerator=machine(2, 2)))
    report = simulate(folder, engine="cocotb")
    assert (report.simulator, report.samples, report.mismatches) == ("cocotb", 2, 0)
    assert report.rtl_cycles == report.model_cycles > 0


def test_a_simulator_that_is_too_small_is_refused(build_once, tmp_path):
    program, codes = small_program(batch=1)
    export(program, tmp_path / "rtl", codes, form=RtlForm())
    with pytest.raises(EngineError, match="build it again"):
        simulate(tmp_path / "rtl", simulator=build_once(NARROW))


@pytest.mark.parametrize("damage", ["missing", "short", "no words"])
def test_a_damaged_export_is_refused(damage: str, build_once, tmp_path):
    program, codes = small_program(batch=1)
    folder = tmp_path / "rtl"
    export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    path = folder / "golden" / "0" / "step_1.hex"
    text = path.read_text()
    path.unlink()
    if damage == "short":
        path.write_text(text[: len(text) // 2])
    elif damage == "no words":
        path.write_text("\n".join("zz" for _ in text.splitlines()))
    with pytest.raises(DocumentError, match=r"step_1\.hex"):
        simulate(folder, simulator=build_once(NARROW))


@pytest.mark.parametrize(
    "name",
    [
        "golden/0/step_3.hex",
        "program/weights.hex",
        "program/descriptors.hex",
        "program/dumps.hex",
        "inputs/0/activations.hex",
        "conformance/golden/0/step_1.hex",
        "conformance/program/parameters.hex",
        "conformance/vectors.json",
    ],
)
def test_a_changed_file_is_not_blamed_on_the_design(name, build_once, tmp_path):
    program, codes = small_program(batch=1)
    folder = tmp_path / "rtl"
    export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    path = folder / name
    text = path.read_text()
    at = max(index for index, digit in enumerate(text) if digit in "0123456789")
    path.write_text(text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :])
    with pytest.raises(DocumentError, match="says nothing about the design") as raised:
        simulate(folder, simulator=build_once(NARROW))
    assert f"{name} (changed)" in str(raised.value)


def test_an_altered_design_document_is_refused(build_once, tmp_path):
    program, codes = small_program(batch=1)
    export(program, tmp_path / "rtl", codes, form=RtlForm(accelerator=NARROW))
    path = tmp_path / "rtl" / "design.json"
    path.write_text(path.read_text().replace('"address": 0', '"address": 1', 1))
    with pytest.raises(DocumentError, match="altered"):
        simulate(tmp_path / "rtl", simulator=build_once(NARROW))


def test_files_that_run_a_design_may_change_and_are_named(build_once, tmp_path):
    program, codes = small_program(batch=1)
    folder = tmp_path / "rtl"
    export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    (folder / "rtl" / "testbench.sv").write_text("// waveforms are written too\n")
    (folder / "rtl" / "my_array.sv").write_text("// mine\n")
    (folder / "README.md").unlink()
    report = simulate(folder, simulator=build_once(NARROW))
    assert report.changed_files == (
        "README.md (missing)",
        "rtl/testbench.sv (changed)",
        "rtl/my_array.sv (added)",
    )


def test_an_rtl_export_of_the_first_version_runs_and_proves_no_rounding(build_once, tmp_path):
    program, codes = small_program(batch=1)
    folder = tmp_path / "rtl"
    export(program, folder, codes, form=RtlForm(accelerator=NARROW))
    shutil.rmtree(folder / "conformance")
    path = folder / "design.json"
    body = json.loads(path.read_text())
    del body["files"], body["content_sha256"]
    path.write_text(json.dumps(body | {"schema_version": 1}))
    report = simulate(folder, simulator=build_once(NARROW))
    assert report.passed
    assert not report.rounding_proven
    assert "holds no conformance vectors" in str(report)


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr(simulator_module.shutil, "which", lambda tool: None)
    with pytest.raises(EngineError, match=r"apt-get install perl make g\+\+"):
        verilator_command()
    monkeypatch.setattr(simulator_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"photomask\[rtl\]"):
        verilator_command()


def test_rtl_that_does_not_compile_says_where(tmp_path):
    (tmp_path / "testbench.sv").write_text("module testbench; logic x = ; endmodule\n")
    with pytest.raises(EngineError, match=r"testbench\.sv:1"):
        build([tmp_path / "testbench.sv"], parameters(NARROW), tmp_path / "build")
    with pytest.raises(DocumentError, match="no SystemVerilog"):
        sources_in(tmp_path / "build")


def test_an_export_is_the_same_bytes_again_and_replaces_only_itself(tmp_path):
    program, codes = small_program(batch=1)
    first, second = tmp_path / "first", tmp_path / "second"
    export(program, first, codes, form=RtlForm())
    export(program, second, codes, form=RtlForm())
    export(program, second, codes, form=RtlForm())
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(ExportError, match="not an earlier output"):
        export(program, tmp_path / "other", codes, form=RtlForm())


def test_the_listing_of_descriptors_names_every_tile(tmp_path):
    program, codes = small_program(batch=1)
    design = export(program, tmp_path / "rtl", codes, form=RtlForm(accelerator=NARROW))
    lines = (tmp_path / "rtl" / "passes.txt").read_text().splitlines()[1:]
    assert len(lines) == sum(step.passes for step in design.steps)
    assert sum(int(line.split()[-1]) for line in lines) == sum(s.cycles for s in design.steps)
    assert "output channels 0 to 3, input channels 0 to 3, input row -1, column -1" in lines[0]
    # 36 features in 9 blocks of 4; the classifier's 5 outputs need two blocks of columns.
    tiles = [line for line in lines if "linear" in line]
    assert len(tiles) == 18
    assert "output channels 4 to 7, input channels 32 to 35" in tiles[-1]

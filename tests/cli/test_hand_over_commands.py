"""The commands that hand a program over: every engine, every format, simulation, import."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.chip.programs import small_program
from torch import nn
from typer.testing import CliRunner, Result

from photomask.chip import (
    IntegerProgram,
    NumpyEngine,
    calibrate,
    convert,
    export,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.forms import FORMS, rtl
from photomask.chip.forms.memory import Manifest, golden_inputs
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.qdq import qdq_model
from photomask.chip.forms.rtl import SimulationReport, simulate
from photomask.chip.target import PRESETS
from photomask.cli import app
from photomask.errors import DocumentError

OWN_FORM = f"{Path(__file__).parents[1] / 'chip/forms/own_form.py'}:ListingForm"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["chip", *map(str, arguments)])


def last_line(result: Result) -> str:
    return result.output.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program, codes = small_program()
    folder = tmp_path_factory.mktemp("hand_over") / "export"
    export(program, folder, codes)
    return folder


@pytest.fixture
def exported(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "export"))


def test_golden_inputs_are_read_back(exported: Path):
    program, codes = small_program()
    found = golden_inputs(exported)
    assert list(found) == list(program.inputs)
    np.testing.assert_array_equal(found[program.inputs[0]], codes)


def test_a_truncated_golden_input_is_refused(exported: Path):
    file = exported / "golden" / "1" / "x.hex"
    file.write_text("\n".join(file.read_text().splitlines()[:-2]), encoding="ascii")
    with pytest.raises(DocumentError, match=r"golden/1/x\.hex"):
        golden_inputs(exported)


@pytest.mark.parametrize("engine", ["torch", "numpy", "c", "onnx"])
def test_every_engine_gives_the_same_integers(exported: Path, tmp_path: Path, engine: str):
    program, codes = small_program()
    np.save(tmp_path / "x.npy", codes)
    done = call(
        "run", exported, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy",
        "--engine", engine,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    expected = NumpyEngine(program).run({program.inputs[0]: codes})[program.outputs[0]]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def test_the_c_project_checks_itself(exported: Path):
    done = call("export", exported, "--format", "c", "--weights", "binary")
    assert done.exit_code == 0, done.output
    made = subprocess.run(
        ["make", "--no-print-directory", "check"],
        cwd=exported / "c",
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip().endswith("0 mismatches")


@pytest.mark.parametrize(
    ("format", "name"), [("onnx", "network.onnx"), ("qonnx", "network.qonnx.onnx")]
)
def test_onnx_files_pass_the_checker(exported: Path, format: str, name: str):
    onnx = pytest.importorskip("onnx")
    done = call("export", exported, "--format", format)
    assert done.exit_code == 0, done.output
    model = onnx.load(exported / name)
    if format == "onnx":
        onnx.checker.check_model(model)
    assert {node.name for node in model.graph.node} >= {"layer1.conv"}


def test_a_format_that_cannot_hold_the_program_writes_nothing(exported: Path):
    done = call("export", exported, "--format", "deeploy")
    assert done.exit_code == 2
    assert "Deeploy" in done.output
    assert not (exported / "deeploy").exists()


def test_the_help_of_export_lists_the_forms():
    done = call("export", "--help")
    assert done.exit_code == 0
    shown = " ".join(done.output.split())
    for form in FORMS:
        assert f"{form.name}: {form.title}".lower() in shown.lower()


def test_memory_images_are_written_again_in_another_encoding(exported: Path, tmp_path: Path):
    done = call(
        "export", exported, "--format", "memory", "--encoding", "npy", "--output", tmp_path / "npy"
    )
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "npy" / "golden").rglob("*.npy"))
    assert not list((tmp_path / "npy" / "golden").rglob("*.hex"))
    assert len(golden_inputs(tmp_path / "npy")["x"]) == 2


def test_memory_images_are_written_again_without_zeros(exported: Path, tmp_path: Path):
    place = tmp_path / "small"
    options = ("--compression", "bitmap", "--compression", "run-length")
    done = call("export", exported, "--format", "memory", *options, "--output", place)
    assert done.exit_code == 0, done.output
    assert Manifest.load(place).compression == ("bitmap", "run-length")
    assert call("check", place).exit_code == 0
    done = call("export", exported, "--format", "memory", "--compression", "zip", "--output", place)
    assert done.exit_code == 2
    assert "choose from n:m, bitmap, run-length, blocks" in " ".join(done.output.split())


def test_an_export_is_not_replaced_by_what_is_read_from_it(exported: Path):
    done = call("export", exported, "--format", "memory", "--encoding", "npy")
    assert done.exit_code == 2
    assert "--output" in done.output
    assert list((exported / "golden").rglob("*.hex"))


@pytest.mark.parametrize(
    "option", [("--weights", "binary"), ("--accelerator", "edge"), ("--encoding", "npy")]
)
def test_a_setting_of_another_form_is_refused_by_name(exported: Path, option: tuple[str, str]):
    done = call("export", exported, "--format", OWN_FORM, *option)
    assert done.exit_code == 2
    setting = option[0].removeprefix("--").replace("encoding", "encodings")
    assert f"'listing' has no setting '{setting}'; it has: comment" in " ".join(done.output.split())


def test_a_form_of_ones_own_is_exported_and_checked(exported: Path):
    done = call("export", exported, "--format", OWN_FORM)
    assert done.exit_code == 0, done.output
    assert (exported / "listing.json").is_file()
    done = call("check", exported, "--format", OWN_FORM)
    assert done.exit_code == 0, done.output
    assert last_line(done) == "PASSED: 144 integers compared, 0 mismatches"
    (exported / "listing.json").write_text("{}")
    done = call("check", exported, "--format", OWN_FORM)
    assert done.exit_code == 2
    assert "not what was exported" in done.output


def test_an_export_is_checked_where_no_simulator_is_named(exported: Path):
    done = call("check", exported)
    assert done.exit_code == 0, done.output
    assert last_line(done).startswith("PASSED: ")
    file = exported / "golden" / "0" / "pool.hex"
    file.write_text(file.read_text().replace("0", "1"), encoding="ascii")
    done = call("check", exported)
    assert done.exit_code == 1
    assert "golden/0/pool.hex" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("EXPORT", "--format", "listing"), "no form 'listing'"),
        (("EXPORT", "--format", "OWN"), "photomask chip export"),
        (("EXPORT", "SIMULATED", "--format", "memory"), "leave out --format"),
    ],
)
def test_a_check_that_cannot_be_made_says_what_to_do(
    exported: Path, arguments: tuple[str, ...], message: str
):
    names = {"EXPORT": str(exported), "SIMULATED": str(exported / "golden"), "OWN": OWN_FORM}
    done = call("check", *(names.get(argument, argument) for argument in arguments))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_estimate_prints_a_table_and_writes_a_document(exported: Path, tmp_path: Path):
    done = call("estimate", exported, "--accelerator", "edge", "--json", tmp_path / "e.json")
    assert done.exit_code == 0, done.output
    assert "layer1.conv" in done.output
    assert json.loads((tmp_path / "e.json").read_text())["steps"]
    assert call("estimate", exported, "--accelerator", "nothing").exit_code == 2


def test_simulate_ends_in_json_and_its_status_says_if_all_is_right(
    exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    reports: list[SimulationReport] = []

    def kept(folder: Path, **options: str) -> SimulationReport:
        reports.append(simulate(folder, engine="verilator"))
        return reports[-1]

    monkeypatch.setattr(rtl, "simulate", kept)
    done = call("simulate", exported)
    assert done.exit_code == 0, done.output
    found = json.loads(last_line(done))
    assert found["mismatches"] == 0
    assert found["rounding_proven"] is True
    assert found["rtl_cycles"] == found["model_cycles"] > 0
    wrong = reports[0].model_copy(update={"mismatches": 1})
    monkeypatch.setattr(rtl, "simulate", lambda folder, engine: wrong)
    again = call("simulate", exported, "--json", tmp_path / "simulation.json")
    assert again.exit_code == 1
    assert SimulationReport.parse((tmp_path / "simulation.json").read_text(), "found") == wrong
    assert json.loads(last_line(again))["mismatches"] == 1


def test_an_rtl_folder_of_another_program_is_refused(exported: Path, tmp_path: Path):
    assert call("export", exported, "--format", "rtl").exit_code == 0
    other, codes = small_program(PRESETS["onnxruntime"])
    export(other, tmp_path / "other", codes)
    shutil.copytree(exported / "rtl", tmp_path / "other" / "rtl")
    done = call("simulate", tmp_path / "other")
    assert done.exit_code == 2
    assert "another program" in done.output


@pytest.mark.parametrize("data", [None, "x.npy"])
def test_a_model_of_another_tool_becomes_an_export(tmp_path: Path, data: str | None):
    pytest.importorskip("onnx")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    images = torch.randn(8, 1, 8, 8)
    prepared = prepare(model, load_recipe("w8a8"), images[:1])
    calibrate(prepared, images)
    save_onnx(qdq_model(convert(prepared, load_target("asic"))), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", images.numpy())
    more = () if data is None else ("--data", tmp_path / data)
    done = call("import", tmp_path / "model.onnx", "--output", tmp_path / "out", *more)
    assert done.exit_code == 0, done.output
    assert IntegerProgram.load(tmp_path / "out").edges["input"].shape == (1, 1, 8, 8)
    assert len(golden_inputs(tmp_path / "out")["input"]) == 1

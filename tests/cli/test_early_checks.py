"""What is wrong with a command line is told before PyTorch is imported and before any work."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from scripts import write_names
from tests.cli.test_options import commands

from photomask.chip.forms.memory import manifest
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.storages import STORAGES
from photomask.chip.forms.rtl import design
from photomask.chip.program import program
from photomask.cli import checks
from photomask.cli.names import INDEX, KINDS, Kind, names_of
from photomask.cli.options import EngineName
from photomask.errors import ExportError, MissingDependencyError


class Answer(NamedTuple):
    """What a command line came to."""

    status: int
    said: str
    printed: str
    imported: list[str]


HEAVY = ["torch", "numpy", "matplotlib", "jinja2", "transformers", "onnx", "onnxruntime", "optuna"]
IN_ONE_PROCESS = """
import contextlib, io, json, sys
from photomask.cli import main

heavy, commands = json.load(sys.stdin)
results = []
for arguments in commands:
    sys.argv = ["photomask", *arguments]
    said, printed, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    imported = sorted(set(heavy) & set(sys.modules))
    results.append([status, said.getvalue(), printed.getvalue(), imported])
json.dump(results, sys.stdout)
"""
DATA = ["--data", "fashion-mnist"]
CONVERT = ["chip", "convert", "resnet20", *DATA, "--output", "new"]
TUNE = ["chip", "tune", "resnet20", *DATA, "--output", "new"]
TRAIN = ["chip", "train", "resnet20", *DATA, "--output", "new"]
PRETRAIN = ["chip", "pretrain", "resnet20", *DATA, "--output", "new.safetensors"]
PRUNE = ["chip", "prune", "resnet20", *DATA, "--output", "new"]
SEARCH = ["chip", "search", "resnet20", *DATA, "--output", "new"]
EXPLORE = ["chip", "explore", "resnet20", *DATA, "--output", "new"]
VERIFY = ["chip", "verify", "resnet20", "EXPORT", *DATA]
ASK = ["attention", "verify", "picture-questions", "FILE", "--data", "picture-questions"]
PLAN = ["attention", "plan", "FILE", "--output", "new.json"]
WRONG = [
    (["list", "recipe"], "recipes"),
    (["demo", "chip", "--output", "FILE"], "FILE is a file"),
    (["demo", "chip", "--output", "FULL"], "not empty"),
    (["demo", "attention", "--output", "FILE/below"], "FILE is a file"),
    (["chip", "convert", "resnet02", *DATA, "--output", "new"], "did you mean 'resnet20'?"),
    (["chip", "convert", "nowhere.py:net", *DATA, "--output", "new"], "no file 'nowhere.py'"),
    (["chip", "convert", "EXPORT", *DATA, "--output", "new"], "the model comes first"),
    (["chip", "convert", "resnet20", "--data", "fashion", "--output", "new"], "no images"),
    (["chip", "convert", "resnet20", "--data", "no.npy", "--output", "new"], "no file no.npy"),
    (["chip", "convert", "resnet20", *DATA, "--output", "FILE"], "FILE is a file"),
    (["chip", "convert", "resnet20", *DATA, "--output", "FULL"], "not empty"),
    (["chip", "convert", "resnet20", *DATA, "--output", "FILE/new"], "FILE is a file, expected"),
    ([*CONVERT, "--recipe", "w8a9"], "neither a recipe preset"),
    ([*CONVERT, "--target", "tpu"], "neither a target preset"),
    ([*CONVERT, "--encoding", "elf"], "choose from hex, bin, dec, npy"),
    ([*CONVERT, "--golden-samples", "0"], "--golden-samples"),
    ([*CONVERT, "--calibration-samples", "many"], "--calibration-samples"),
    ([*CONVERT, "--quiet", "--verbose"], "contradict"),
    (["chip", "convert", "resnet20@no.safetensors", *DATA, "--output", "new"], "no file no.safe"),
    ([*PRETRAIN, "--method", "simclr"], "barlow-twins"),
    ([*PRETRAIN, "--method", "xd"], "--method xd needs --host"),
    ([*PRETRAIN, "--host", "mobilenet_v1"], "--host belongs to --method xd"),
    ([*PRETRAIN, "--method", "xd", "--host", "resnet02"], "did you mean 'resnet20'?"),
    ([*PRETRAIN, "--resume"], "name its folder by --checkpoint"),
    ([*PRETRAIN, "--learning-rate", "0"], "--learning-rate takes a number above 0"),
    ([*PRETRAIN[:-1], "new.pt"], "written to a .safetensors file"),
    ([*PRUNE, "--sparsity", "1"], "--sparsity takes a number above 0 and below 1, found 1"),
    ([*PRUNE, "--channels", "-0.5"], "--channels takes a number above 0 and below 1"),
    ([*PRUNE, "--pattern", "2/4"], "'2/4' is no pattern"),
    ([*PRUNE, "--pattern", "4:4"], "keeps 4 of 4 weights"),
    ([*PRUNE, "--pattern", "0x8"], "a block of 0x8 holds no weight"),
    ([*PRUNE, "--method", "lottery"], "magnitude"),
    (["chip", "show", "NOTHERE"], "no folder NOTHERE"),
    (["chip", "show", "FULL"], "holds no program.json"),
    (["chip", "run", "EXPORT", "--input", "no.npy", "--output", "y.npy"], "no file no.npy"),
    (["chip", "run", "EXPORT", "--input", "FILE", "--output", "EXPORT"], "it is a folder"),
    (["chip", "run", "EXPORT", "--input", "FILE", "--output", "y", "--engine", "d"], "onnx"),
    ([*VERIFY[:2], "resnet20", "nowhere", *DATA], "no folder nowhere"),
    ([*VERIFY, "--labels", "no.npy"], "no file no.npy"),
    ([*VERIFY, "--thresholds", "no.json"], "no file no.json"),
    ([*VERIFY, "--samples", "0"], "--samples"),
    ([*VERIFY, "--json", "EXPORT"], "it is a folder"),
    ([*VERIFY, "--html", "FILE/r.html"], "FILE is a file, expected"),
    ([*VERIFY, "--device", "gpu"], "expected cpu, cuda"),
    ([*VERIFY, "--accelerator", "edgy", "--html", "r.html"], "did you mean 'edge'?"),
    (["chip", "check", "NOTHERE"], "no folder NOTHERE"),
    (["chip", "check", "EXPORT", "nowhere"], "no folder nowhere"),
    (["chip", "check", "EXPORT", "--format", "d"], "no form 'd'"),
    (["chip", "check", "EXPORT", "FULL", "--format", "c"], "leave out --format"),
    (["chip", "export", "EXPORT", "--format", "verilog"], "no form 'verilog'"),
    (["chip", "export", "EXPORT", "--format", "c", "--weights", "x"], "binary"),
    (["chip", "export", "EXPORT", "--format", "no.py:form"], "no file 'no.py'"),
    (["chip", "estimate", "EXPORT", "--accelerator", "tpu"], "neither an accelerator preset"),
    (["chip", "estimate", "EXPORT", "--json", "FILE/r.json"], "FILE is a file, expected"),
    (["chip", "simulate", "FULL"], "holds no program.json or design.json"),
    (["chip", "simulate", "EXPORT", "--simulator", "x"], "cocotb"),
    (SEARCH, "give a budget"),
    ([*SEARCH, "--as-uniform", "17"], "--as-uniform"),
    ([*SEARCH, "--budget", "9", "--widths", "2,x"], "--widths takes numbers from 1 to 16"),
    ([*SEARCH, "--budget", "9", "--picture", "EXPORT"], "it is a folder"),
    ([*EXPLORE, "--trials", "0"], "--trials"),
    ([*EXPLORE, "--objectives", "acuracy"], "did you mean 'accuracy'?"),
    ([*EXPLORE, "--objectives", "cycles,cycles"], "a metric twice"),
    ([*EXPLORE, "--stop-early", "median"], "--stop-early needs --objectives accuracy"),
    ([*EXPLORE, "--storage", "EXPORT"], "it is a folder"),
    ([*EXPLORE, "--space", "no.json"], "no file no.json"),
    ([*TUNE, "--smooth", "2"], "--smooth"),
    ([*TUNE, "--checkpoint", "FILE/below"], "FILE is a file"),
    ([*TRAIN, "--settings", "no.json"], "no file no.json"),
    ([*TRAIN, "--learning-rate", "-1"], "above 0"),
    ([*TRAIN, "--resume"], "--checkpoint"),
    (["chip", "import", "no.onnx", "--output", "new"], "no file no.onnx"),
    (["attention", "calibrate", "picture-question", "--data", "picture-questions",
      "--output", "s"], "did you mean 'picture-questions'?"),
    (["attention", "calibrate", "./nowhere", "--data", "picture-questions", "--output", "s"],
     "no model './nowhere'"),
    (["attention", "calibrate", "picture-questions", "--data", "p", "--output", "s"],
     "no prompts 'p'"),
    (["attention", "plan", "nowhere", "--output", "p.json"], "no file nowhere"),
    ([*PLAN, "--budget", "2"], "--budget"),
    ([*PLAN, "--votes", "--kv-groups"], "leave the others out"),
    ([*ASK, "--statistics", "nowhere"], "no file nowhere"),
    ([*ASK, "--task-loss", "few"], "--task-loss"),
    (["attention", "show", "nowhere"], "no file nowhere"),
    (["attention", "show", "./a/plan"], "no file ./a/plan: expected a plan file, a folder"),
    (["attention", "serve-check", "picture-questions", "no.json"], "no file no.json"),
    (["attention", "serve-check", "./nowhere", "FILE"], "no model './nowhere'"),
    (["attention", "lmms-task", "--data", "p", "--output", "new", "--name", "n"], "no prompts 'p'"),
    (["attention", "lmms-task", "--data", "picture-questions", "--output", "FULL", "--name", "n"],
     "FULL"),
    (["attention", "lmms-task", "--data", "picture-questions", "--output", "new", "--name", "a b"],
     "'a b' is no name of a task"),
    (["report", "compare", "FILE", "nowhere"], "no file nowhere"),
    (["report", "compare", "FILE", "FILE", "--csv", "FILE/below"], "FILE is a file, expected"),
    (["report", "show", "nowhere"], "no file nowhere"),
    (["report", "html", "FILE", "--output", "EXPORT"], "it is a folder"),
    (["report", "csv", "nowhere", "--output", "new"], "no file nowhere"),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the command lines name."""
    folder = tmp_path_factory.mktemp("early")
    for name in ("EXPORT", "FULL"):
        (folder / name).mkdir()
    (folder / "EXPORT" / checks.PROGRAM_FILE).write_text("{}")
    (folder / "FULL" / "letter.txt").write_text("dear")
    (folder / "FILE").write_text("")
    return folder


def run_all(command_lines: list[list[str]], place: Path) -> list[Answer]:
    """Runs command lines in one fresh interpreter, which no earlier test has imported into."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps([HEAVY, command_lines]),
        cwd=place,
        env=os.environ | {"COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [Answer(*fields) for fields in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def answers(place: Path) -> list[Answer]:
    return run_all([arguments for arguments, _ in WRONG], place)


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda n: " ".join(WRONG[n][0])[:70])
def test_a_wrong_argument_is_told_without_torch(number: int, answers: list[Answer], place: Path):
    answer, message = answers[number], WRONG[number][1]
    assert answer.status == 2, answer
    assert message in " ".join(answer.said.split())
    assert "Traceback" not in answer.said
    assert not answer.printed
    assert not answer.imported
    assert not [path for path in place.iterdir() if path.name not in ("EXPORT", "FILE", "FULL")]


def test_every_command_with_arguments_is_among_them():
    tried = {" ".join(arguments[:2]) for arguments, _ in WRONG}
    assert {name if " " in name else f"{name} recipe" for name in commands()} <= tried


LISTS = [["list"], *(["list", kind, *option] for kind in KINDS for option in ([], ["--json"]))]


def test_lists_need_no_torch_and_are_json_where_asked(place: Path):
    for arguments, answer in zip(LISTS, run_all(LISTS, place), strict=True):
        assert answer.status == 0, answer
        assert not answer.imported
        names = KINDS if len(arguments) == 1 else names_of(arguments[1])  # type: ignore[arg-type]
        if "--json" in arguments:
            listed = json.loads(answer.printed)
            assert {one["name"]: one["purpose"] for one in listed} == names
        else:
            lines = [line for line in answer.printed.splitlines() if not line.startswith(" ")]
            assert [line.split("  ")[0] for line in lines] == [*names]


def test_the_names_are_those_of_the_registries():
    assert INDEX.read_text(encoding="utf-8") == write_names.rendered(), (
        "names, purposes or titles have changed: run scripts/write_names.py"
    )
    assert [*write_names.registered()] == [*KINDS] == [*get_args(Kind)]
    assert [*names_of("engines")] == [*get_args(EngineName)]


def test_what_is_known_before_the_library_is_what_the_library_says():
    assert list(checks.ENCODINGS) == [encoding.value for encoding in Encoding]
    assert list(checks.COMPRESSIONS) == list(STORAGES)
    assert checks.PROGRAM_FILE == program.PROGRAM_FILE
    assert checks.DESIGN_FILE == design.DESIGN_FILE
    assert checks.MANIFEST_FILE == manifest.MANIFEST_FILE


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(ExportError, match="may not be written"):
        checks.output_file(tmp_path / "below" / "report.json")
    with pytest.raises(ExportError, match="may not be written"):
        checks.output_folder("chip export")(tmp_path / "new")


@pytest.mark.parametrize(
    ("check", "given", "package"),
    [
        (checks.html_file, Path("r.html"), "matplotlib"),
        (checks.html_file, Path("r.html"), "jinja2"),
        (checks.drawing_file, Path("c.svg"), "matplotlib"),
        (checks.engine, "onnx", "onnxruntime"),
        (checks.form, "qdq", "onnx"),
        (checks.onnx_file, Path("m.onnx"), "onnx"),
        (checks.simulator, "cocotb", "cocotb"),
        (checks.vision_language_model, "picture-questions", "transformers"),
        (checks.demo_folder, Path("out"), "matplotlib"),
        (checks.demo_place, Path("out"), "transformers"),
    ],
)
def test_a_missing_package_is_told_with_what_installs_it(
    check: Callable[[Any], Any], given: object, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*pip install 'photomask\["):
        check(given)


def test_a_missing_folder_costs_less_than_half_a_second_of_cpu(place: Path):
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "photomask", "chip", "show", "NOTHERE"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    spent = after.children_user - before.children_user
    assert done.returncode == 2
    assert done.stderr == "error: no folder NOTHERE\n"
    assert spent < 1.0  # on an idle machine 0.3 s; importing PyTorch alone takes 1.5 s

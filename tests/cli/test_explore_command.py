import json
from pathlib import Path
from typing import get_args

import pytest
from tests.cli.test_commands import MODEL, call

from photomask.chip import IntegerProgram
from photomask.chip.exploration import Exploration, ExploredPoint, Metric
from photomask.cli import checks

LABELS = """

def labelled():
    x = images()
    return {"x": x, "labels": net()(x).argmax(dim=1)}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explore") / "model.py"
    path.write_text(MODEL + LABELS)
    return path


def explore(source: Path, output: Path, *options: object):
    common = ("--data", f"{source}:labelled", "--calibration-samples", 16, "--output", output)
    return call("chip", "explore", f"{source}:net", *common, *options)


def test_the_front_is_written_and_a_point_converts(source: Path, tmp_path: Path):
    space = tmp_path / "space.json"
    space.write_text('{"recipes": ["w8a8", "w4a8"], "groups": [], "prunings": []}')
    options = ("--space", space, "--storage", tmp_path / "s.journal", "--seed", 1)
    done = explore(source, tmp_path / "found", *options, "--trials", 2)
    assert done.exit_code == 0, done.output
    found = Exploration.load(tmp_path / "found" / "exploration.json")
    assert [trial.preset for trial in found.trials] == ["w8a8", "w4a8"]
    assert " ".join(str(found).split()) in " ".join(done.output.split())
    front = json.loads((tmp_path / "found" / "front.json").read_text())
    numbers = {str(point["number"]) for point in front["points"]}
    assert {path.name for path in (tmp_path / "found" / "points").iterdir()} == numbers
    for name in ("front.svg", "front.png"):
        assert (tmp_path / "found" / name).stat().st_size > 1000
    place = tmp_path / "found" / "points" / min(numbers)
    done = call(
        "chip", "convert", f"{source}:net", "--data", f"{source}:images", "--recipe",
        place / "recipe.json", "--calibration-samples", 16, "--output", tmp_path / "export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    program = IntegerProgram.load(tmp_path / "export")
    assert program.content_hash() == ExploredPoint.load(place).figures().program_sha256
    done = explore(source, tmp_path / "found", *options, "--trials", 3)
    assert done.exit_code == 0, done.output
    assert len(Exploration.load(tmp_path / "found" / "exploration.json").trials) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stop-early", "median"), "--stop-early needs --objectives accuracy"),
        (("--objectives", "accuracy,size"), "no metric 'size'"),
        (("--samples", 0), "--samples"),
        (("--calibration-samples", 100000), "100000"),
    ],
)
def test_what_cannot_be_explored_is_refused(
    source: Path, tmp_path: Path, options: tuple, message: str
):
    done = explore(source, tmp_path / "found", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_a_space_in_which_nothing_is_possible_says_why(source: Path, tmp_path: Path):
    space = tmp_path / "space.json"
    space.write_text('{"recipes": ["w8a8"], "groups": [], "prunings": [], "limits": {"cycles": 1}}')
    done = explore(source, tmp_path / "found", "--space", space, "--trials", 1)
    assert done.exit_code == 2
    assert "no combination of the 1 trials is possible" in " ".join(done.output.split())
    assert "beyond the limit of 1" in " ".join(done.output.split())
    assert not (tmp_path / "found").exists()


def test_data_without_right_classes_are_refused(source: Path, tmp_path: Path):
    done = call(
        "chip", "explore", f"{source}:net", "--data", f"{source}:images", "--output",
        tmp_path / "found",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "no right classes" in " ".join(done.output.split())


def test_the_metrics_of_the_command_line_are_those_of_the_library():
    assert get_args(Metric) == checks.METRICS

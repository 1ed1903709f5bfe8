import csv
import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MARKED = "# Title\n<!-- figures -->\nold\n<!-- /figures -->\nend\n"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rows")


@pytest.fixture
def figures(rows: ModuleType) -> ModuleType:
    return importlib.import_module("figures")


def test_rows_state_what_was_measured_with_which_versions(rows: ModuleType, tmp_path: Path):
    results = rows.Results("accuracy", tmp_path)
    results.samples(rows.Subject("accuracy", "ours", "net"), "speed", [1.0, 2.0, 6.0], "images/s")
    with (tmp_path / "accuracy.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == rows.COLUMNS
    assert (row["value"], row["p50"], row["repetitions"]) == ("2", "2", "3")
    assert 1 <= float(row["p20"]) < 2 < float(row["p80"]) <= 6
    assert all(row[name] for name in ("version", "device", "cores", "torch", "python", "date"))


def test_the_newest_row_of_a_subject_wins(rows: ModuleType, tmp_path: Path):
    results = rows.Results("accuracy", tmp_path)
    subject = rows.Subject("accuracy", "ours", "net")
    results.number(subject, "top1", 90, "%")
    results.number(subject, "top1", 91, "%")
    assert [row["value"] for row in rows.read("accuracy", tmp_path)] == ["91"]


def test_figures_replace_what_is_between_the_markers_and_nothing_else(
    rows: ModuleType, figures: ModuleType, tmp_path: Path
):
    results = rows.Results("accuracy", tmp_path)
    results.number(rows.Subject("accuracy", "ours", "net"), "top1", 93.256, "%")
    results.skipped(rows.Subject("accuracy", "theirs", "net"), "not installed: pip install it")
    text = figures.with_figures(MARKED, figures.render(tmp_path))
    assert text.startswith("# Title\n<!-- figures -->\n")
    assert text.endswith("\n<!-- /figures -->\nend\n")
    assert "93.26 %" in text
    assert "old" not in text
    assert "theirs" not in text
    assert figures.with_figures(text, figures.render(tmp_path)) == text


def test_a_text_without_markers_is_left_alone(figures: ModuleType):
    assert figures.with_figures("# Title\n", "figures") is None


def test_every_measured_file_can_be_shown(figures: ModuleType):
    figures.render(BENCHMARKS / "results")

"""The notebooks run within a minute or so, and hold the outputs that the site shows."""

import importlib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def shapes_of_outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Returns, cell by cell, the kinds of its outputs."""
    return [
        sorted({kind for each in cell.outputs for kind in each.get("data", {each.output_type: ""})})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    execute = importlib.import_module("execute_notebooks")
    done = execute.executed(path)
    assert shapes_of_outputs(done) == shapes_of_outputs(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_was_executed_from_top_to_bottom(path: Path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert path.stat().st_size < 300_000

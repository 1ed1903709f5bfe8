"""Executes the notebooks of the documentation and stores their outputs in them.

What differs from run to run although nothing changed (times of cells, names of the environment)
is left out, so that a notebook changes only where its code or its results do.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
SECONDS = 300
"""After which a cell is given up."""


def main() -> int:
    """Executes every notebook in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", type=Path, nargs="*", default=sorted(NOTEBOOKS.glob("*.ipynb"))
    )
    for path in parser.parse_args().notebooks:
        nbformat.write(executed(path), path)
        print(f"executed {path.name}")
    return 0


def executed(path: Path) -> nbformat.NotebookNode:
    """Returns a notebook with the outputs of a fresh kernel in an empty folder.

    Raises:
        CellExecutionError: a cell raised; the message shows its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources=resources,
            record_timing=False,
        ).execute()
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        shown = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        if cell.cell_type == "code":
            cell["outputs"] = shown  # progress bars are no result
        for output in shown:
            if "text/html" in output.get("data", {}):
                output["data"].pop("text/plain", None)  # nobody sees it beside the page
    return notebook


if __name__ == "__main__":
    sys.exit(main())

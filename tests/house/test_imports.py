import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tests.house.import_graph import circles_of, import_graph
from tests.house.sources import ROOT

HEAVY = {
    "IPython",
    "PIL",
    "accelerate",
    "brevitas",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "rich",
    "scipy",
    "skimage",
    "sklearn",
    "timm",
    "torchao",
    "torchvision",
    "transformers",
    "triton",
    "typer",
}


@cache
def modules_after(statement: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter has imported after a statement."""
    listing = "print(*{name.partition('.')[0] for name in sys.modules})"
    code = f"{statement}; import sys; {listing}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_imports_neither_torch_nor_numpy():
    assert not modules_after("import photomask") & (HEAVY | {"torch", "numpy", "pydantic"})


def test_the_command_line_starts_without_torch():
    assert not modules_after("import photomask.cli") & {"torch", "numpy", "jinja2", "matplotlib"}


@pytest.mark.parametrize("name", ["attention", "chip", "zoo", "report"])
def test_a_cold_import_takes_nothing_optional(name: str):
    by_torch = modules_after("import torch")
    assert not (modules_after(f"import photomask.{name}") - by_torch) & HEAVY


def test_no_modules_import_each_other():
    graph = import_graph(ROOT / "src")
    assert len(graph) > 300
    assert not circles_of(graph)


@pytest.mark.parametrize(
    ("back", "circle"),
    [
        ("import house.a", {"house.a", "house.b", "house.c"}),
        ("def f():\n    from house import a", {"house.a", "house.b", "house.c"}),
        ("if TYPE_CHECKING:\n    from house.b import B", {"house.b", "house.c"}),
        ("from house import other", set()),
    ],
)
def test_a_circle_is_found_wherever_the_import_stands(back: str, circle: set[str], tmp_path: Path):
    folder = tmp_path / "house"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "a": "from house.b import B",
        "b": "from house import c",
        "c": back,
        "other": "",
    }.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    assert circles_of(import_graph(tmp_path)) == ([circle] if circle else [])


def test_import_contracts_hold():
    linter = pytest.importorskip("importlinter.cli")
    assert linter.lint_imports(no_logo=True) == 0

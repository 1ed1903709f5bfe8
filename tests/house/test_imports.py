import subprocess
import sys
from functools import cache

import pytest

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


def test_import_contracts_hold():
    linter = pytest.importorskip("importlinter.cli")
    assert linter.lint_imports(no_logo=True) == 0

"""An optional package that is absent, and one that is installed but broken."""

import importlib
import sys
from pathlib import Path

import pytest

from photomask import BrokenDependencyError, MissingDependencyError
from photomask.dependencies import OptionalPackage

BROKEN = {
    "ImportError": "raise ImportError('libtorch.so is too old')",
    "RuntimeError": "raise RuntimeError('operator torchvision::nms does not exist')",
    "OSError": "raise OSError('libcudart.so.13: cannot open shared object file')",
    "AttributeError": "import math; math.no_such_name",
    "ModuleNotFoundError": "import no_such_package_of_the_package",
    "chained": (
        "try:\n    raise RuntimeError('operator torchvision::nms does not exist')\n"
        "except RuntimeError as error:\n    raise ModuleNotFoundError('no Processor') from error"
    ),
}


def load(package: str) -> None:
    with OptionalPackage(package, "report", "the HTML report"):
        importlib.import_module(package.replace("-", "_"))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_package_is_reported_with_its_own_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / f"broken_{kind.lower()}.py").write_text(BROKEN[kind])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BrokenDependencyError) as found:
        load(f"broken-{kind.lower()}")
    text = str(found.value)
    assert "is installed but cannot be imported" in text
    assert "pip install" not in text
    own = {"AttributeError": "no_such_name", "ModuleNotFoundError": "no_such_package"}
    assert (own[kind] if kind in own else BROKEN[kind].split("'")[1]) in text


@pytest.mark.parametrize("package", ["no-such-package", "jinja2"])
def test_an_absent_package_is_reported_with_what_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'photomask\[report\]'"):
        load(package)


def test_a_package_that_is_imported_by_another_name_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with (
        pytest.raises(MissingDependencyError, match="'pillow', which is not installed"),
        OptionalPackage("pillow", "zoo", "the pictures"),
    ):
        importlib.import_module("PIL")


def test_errors_of_our_own_pass_through():
    with (
        pytest.raises(MissingDependencyError, match="'inner'"),
        OptionalPackage("outer", "report", "something"),
    ):
        raise MissingDependencyError("inner", "report", "something else")


def test_an_interrupt_passes_through():
    with pytest.raises(KeyboardInterrupt), OptionalPackage("outer", "report", "something"):
        raise KeyboardInterrupt

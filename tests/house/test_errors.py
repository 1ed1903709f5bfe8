import ast
import inspect
import re

import pytest
from tests.house.sources import ROOT

import photomask
from photomask import errors


def drawn_tree() -> dict[str, str]:
    """Returns child → parent as the docstring of `errors` draws it."""
    parents: list[tuple[int, str]] = []
    tree: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│├└─ ]*)(\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        if parents:
            tree[found[2]] = parents[-1][1]
        parents.append((depth, found[2]))
    return tree


def real_tree() -> dict[str, str]:
    """Returns child → parent as the classes are."""
    return {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value is not errors.PhotomaskError
    }


def test_the_drawn_error_tree_is_the_real_one():
    assert drawn_tree() == real_tree()
    assert len(drawn_tree()) >= 10


def test_every_error_is_exported():
    assert {*real_tree(), "PhotomaskError"} <= set(photomask.__all__)


@pytest.mark.parametrize(
    ("install", "line"),
    [
        ("report", "pip install 'photomask[report]'"),
        ("--no-deps a==1", "pip install --no-deps a==1"),
    ],
)
def test_a_missing_dependency_names_the_install_line(install: str, line: str):
    assert str(errors.MissingDependencyError("a", install, "the report")).endswith(line)


def test_the_package_refuses_and_never_asserts():
    asserting = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            asserting.append(path.relative_to(ROOT))
    assert not asserting

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import photomask

PACKAGES = [
    photomask.__name__,
    *(
        module.name
        for module in pkgutil.walk_packages(photomask.__path__, "photomask.")
        if module.ispkg
    ),
]


def names_of_its_own(package: ModuleType) -> set[str]:
    """Returns the public names that a package's `__init__` defines or takes from its own files."""
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            if (statement.module or "").startswith("photomask"):
                names |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return {
        name
        for name in names
        if not name.startswith("_") and not inspect.ismodule(getattr(package, name))
    }


def has_string_below(module: str, name: str) -> bool:
    """Tells whether the constant `name` has a string below it, wherever it is defined."""
    found = importlib.import_module(module)
    tree = ast.parse(Path(str(found.__file__)).read_text(encoding="utf-8"))
    for position, statement in enumerate(tree.body):
        if isinstance(statement, ast.ImportFrom):
            if any((alias.asname or alias.name) == name for alias in statement.names):
                return has_string_below(str(statement.module), name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                below = tree.body[position + 1 : position + 2]
                return bool(below) and isinstance(below[0], ast.Expr)
    return False


@pytest.mark.parametrize("package", PACKAGES)
def test_all_equals_the_public_names(package: str):
    module = importlib.import_module(package)
    exported = list(getattr(module, "__all__", []))
    assert len(exported) == len(set(exported))
    assert {name for name in exported if not name.startswith("_")} == names_of_its_own(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_says_what_it_is(package: str):
    module = importlib.import_module(package)
    assert module.__doc__
    silent = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if name.startswith("__"):
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            documented = bool(value.__doc__)
        else:
            documented = has_string_below(package, name)
        if not documented:
            silent.append(name)
    assert not silent

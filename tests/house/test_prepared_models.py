"""Who writes to a prepared model: its own methods, and nobody else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.sources import ROOT

GETTERS = {"constants_of", "quantized_constants_of", "layer", "layers"}
"""Methods of a prepared model that return its tensors."""
OWN = "prepared_model.py"


def writes(source: str) -> list[int]:
    """Returns the lines that write to a prepared model other than by its methods.

    Such are an assignment to an attribute or item of a name `prepared`, and an in-place function of
    a tensor that a getter returned, whether it was given a name in between or not.
    """
    tree = ast.parse(source)
    return [
        line
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for line in _writes(function)
    ]


def _writes(function: ast.FunctionDef) -> Iterator[int]:
    taken: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_taken(node.value, taken):
            names = [x for target in node.targets for x in ast.walk(target)]
            taken |= {x.id for x in names if isinstance(x, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        else:
            targets = []
        parts = [x for t in targets for x in (t.elts if isinstance(t, ast.Tuple) else [t])]
        if any(_is_of_prepared(part) for part in parts):
            yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            in_place = name.endswith("_") and not name.endswith(("__", "requires_grad_"))
            if in_place and _is_taken(node.func.value, taken):
                yield node.lineno


def _is_of_prepared(target: ast.expr) -> bool:
    """Tells whether a target is part of a prepared model; `target` is a setter of its own."""
    if isinstance(target, ast.Attribute) and target.attr == "target":
        return False
    found = target
    while isinstance(found, ast.Attribute | ast.Subscript):
        found = found.value
    named = [x for x in ast.walk(target) if isinstance(x, ast.Attribute) and x.attr == "prepared"]
    is_name = isinstance(found, ast.Name) and found.id == "prepared" and found is not target
    return is_name or any(x is not target for x in named)


def _is_taken(value: ast.expr, taken: set[str]) -> bool:
    """Tells whether an expression is a tensor of a prepared model, and not computed from one."""
    while True:
        if isinstance(value, ast.Name):
            return value.id in taken
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr in GETTERS:
                return True
            if value.func.attr not in ("detach", "reshape", "view", "flatten", "t"):
                return False
            value = value.func.value
        elif isinstance(value, ast.Attribute | ast.Subscript):
            if isinstance(value, ast.Attribute) and value.attr == "weights":
                return _is_of_prepared(value)
            value = value.value
        else:
            return False


MODULES = sorted((ROOT / "src" / "photomask" / "chip").rglob("*.py"))


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda p: p.name)
def test_only_its_methods_write_to_a_prepared_model(folder: Path):
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in folder.glob("*.py")
        if path.name != OWN
        for line in writes(path.read_text(encoding="utf-8"))
    }
    assert not found


@pytest.mark.parametrize(
    ("line", "is_write"),
    [
        ('prepared.constants_of(node)["bias"].sub_(1)', True),
        ('prepared.constants_of(node)["bias"].detach().reshape(-1).copy_(x)', True),
        ("prepared.layer(node).weight.mul_(2)", True),
        ("prepared.weights[name].fill_(0)", True),
        ("prepared.batch_norms[key] = norm", True),
        ("del prepared.batch_norms[key]", True),
        ("self.prepared.recipe = recipe", True),
        ("prepared.weights, x = other, 1", True),
        ("prepared.target = target", False),
        ("self.prepared = prepared", False),
        ("prepared = other", False),
        ('prepared.constants_of(node)["bias"].clone().sub_(1)', False),
        ('(prepared.constants_of(node)["bias"] - 1).clamp_(0)', False),
        ('prepared.set_constant(node, "bias", value)', False),
    ],
)
def test_the_rule_sees_what_it_is_about(line: str, is_write: bool):
    assert bool(writes(f"def f():\n    {line}\n")) == is_write


def test_the_rule_follows_a_name():
    assert writes(
        'def f():\n    bias = prepared.constants_of(node)["bias"].detach()\n    bias.sub_(1)\n'
    ) == [3]

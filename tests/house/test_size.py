import ast

from tests.house.sources import ROOT, python_files, tracked_files

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
LINES_OF_AN_EXAMPLE = 60
MOST_PACKED = 2
"""Values that one assignment gives to as many names: a pair belongs together, three do not."""
BYTES_OF_THE_CHECKOUT = 28 * 2**20


def test_no_file_is_longer_than_people_read():
    long = {
        str(path.relative_to(ROOT)): count
        for path in python_files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES_OF_A_FILE
    }
    assert not long


def test_no_function_is_longer_than_a_screen():
    long = {}
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = code_lines(node)
                if body > LINES_OF_A_FUNCTION:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = body
    assert not long


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_examples_are_short():
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < LINES_OF_AN_EXAMPLE, path


def test_the_checkout_is_small():
    assert sum(path.stat().st_size for path in tracked_files()) < BYTES_OF_THE_CHECKOUT


def test_no_assignments_are_packed_to_save_lines():
    packed = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Tuple)
                and isinstance(node.value, ast.Tuple)
                and len(node.value.elts) > MOST_PACKED
            ):
                packed.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not packed

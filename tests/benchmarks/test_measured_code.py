import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SOURCE = '''
"""A module."""
LIMIT = 3  # why


def double(x):
    """Doubles."""
    if x > LIMIT:
        raise ValueError(f"{x} is too much")
    return 2 * x
'''
OTHER_TEXTS = '''
"""Other words."""
LIMIT = 3


def double(x):
    if x > LIMIT:
        raise ValueError("no more than three")
    return 2 * x  # because
'''


@pytest.fixture
def measured_code(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("measured_code")


def test_texts_do_not_make_a_row_old(measured_code: ModuleType):
    assert measured_code.without_texts(SOURCE, ".py") == measured_code.without_texts(
        OTHER_TEXTS, ".py"
    )
    verilog = "wire a; // one\n/* two\nlines */\nwire b;\n"
    assert measured_code.without_texts(verilog, ".sv") == "wire a;\nwire b;"


@pytest.mark.parametrize(
    ("before", "after"),
    [("LIMIT = 3", "LIMIT = 4"), ("2 * x", "3 * x"), ("ValueError", "KeyError")],
)
def test_what_the_code_does_makes_a_row_old(measured_code: ModuleType, before: str, after: str):
    changed = SOURCE.replace(before, after)
    assert measured_code.without_texts(SOURCE, ".py") != measured_code.without_texts(changed, ".py")


def test_every_benchmark_that_appends_rows_says_what_it_measures(measured_code: ModuleType):
    results = {file.stem for file in (BENCHMARKS / "results").glob("*.csv")}
    assert results <= set(measured_code.MEASURED)
    figures = importlib.import_module("figures")
    assert {section.script for section in (*figures.CHIP, *figures.ATTENTION)} <= set(
        measured_code.MEASURED
    )


def test_everything_measured_exists(measured_code: ModuleType):
    hashes = {name: measured_code.code_hash(name) for name in measured_code.MEASURED}
    assert all(len(found) == 10 for found in hashes.values())


def test_outdated_rows_of_ours_are_named_under_their_table(measured_code: ModuleType):
    figures = importlib.import_module("figures")
    row = {"what": "accuracy", "network": "net", "date": "2026-01-02T03:04:05Z"}
    rows = [
        {**row, "implementation": "photomask old", "code": ""},
        {**row, "implementation": "photomask new", "code": measured_code.code_hash("accuracy")},
        {**row, "implementation": "a peer", "code": ""},
    ]
    assert figures.outdated(rows) == "*Older than the code: photomask old, net (2026-01-02).*"
    assert figures.outdated(rows[1:]) == ""
    all_old = figures.outdated([rows[0], rows[2]])
    assert all_old == "*Older than the code: all rows of Photomask (2026-01-02).*"

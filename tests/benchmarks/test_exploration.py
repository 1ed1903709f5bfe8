import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_preset_stands_above_the_point_that_replaces_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows, tables = importlib.import_module("rows"), importlib.import_module("chip_tables")
    results = rows.Results("exploration", tmp_path)
    study = rows.Subject("exploration", "photomask study", "net")
    for metric, value in (("time", 3), ("time per trial", 2), ("measured", 150), ("repeated", 40)):
        results.number(study, metric, value, "min" if metric == "time" else "s")
    results.number(study, "infeasible", 10, "trials")
    for name, weights in (("photomask w8a8", 2000), ("photomask instead of w8a8", 1000)):
        subject = rows.Subject("exploration", name, "net")
        figures = {"top1": 90, "weights": weights, "accumulator": 20, "cycles": 5000, "energy": 7}
        for metric, value in figures.items():
            results.number(subject, metric, value, "bits", note="w4a8, dense; trial 7")
    _, first, second, last = tables.exploration(rows.read_current("exploration", tmp_path))
    assert first[0].startswith("photomask w8a8")
    assert second[0].endswith(": w4a8, dense")
    assert (first[2], second[2], second[4]) == ("2,000 bytes", "1,000 bytes", "5,000")
    assert last[:2] == (
        "the study: 150 measured, 40 repeated, 10 infeasible", "3.0 min, 2.00 s per trial"
    )  # fmt: skip

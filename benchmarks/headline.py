"""The headline table of the README: the few lines by which a reader decides to read on.

Every line shows the original, Photomask, and the best of the other tools that were measured in
the same way, whether or not it is ahead.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prefill.points import MAIN_IMAGE, OURS, read_points
from rows import is_outdated, read_current
from table_cells import Row, Table

MARK = "†"
"""Stands behind our figures that are older than the code they measured."""
HEAD = ("measured", "original model", "Photomask", "best other tool")
LENGTH = 131_072
"""Tokens of the prompts for which times are shown."""
SHAPE = "Qwen2.5-VL-7B"
SPARSE = ", 30 % dense"
PLAN = f"photomask{SPARSE}"


def build(folder: Path) -> Table:
    """Returns a line for each question whose rows were measured."""
    lines = [
        *_few_bits(read_current("quantizers", folder), "W8A8, calibrated", "8 bits, calibrated"),
        *_few_bits(read_current("quantizers", folder), "W4A4, calibrated", "4 bits, calibrated"),
        *_agreement(read_current("mobilenet_v2", folder)),
        *_exactness(read_current("exactness", folder)),
        *_layer(read_current("prefill_attention", folder)),
        *_first_token(read_current("time_to_first_token", folder)),
    ]
    return [HEAD, *lines]


def note(table: Table) -> str:
    """Says what the mark means where the table has it."""
    marked = any(MARK in cell for line in table for cell in line)
    return f"<sub>{MARK} measured before the newest change of the code</sub>" if marked else ""


def _age(rows: Sequence[Row], name: str) -> str:
    """Returns the mark if a row of an implementation is older than the code."""
    old = any(is_outdated(row) for row in rows if row["implementation"] == name)
    return f" {MARK}" if old else ""


def _few_bits(rows: Sequence[Row], flow: str, words: str) -> Iterator[tuple[str, ...]]:
    """Top-1 of ResNet-20 with as many bits for weights as for activations."""
    top1 = {
        row["implementation"]: float(row["value"])
        for row in rows
        if row["network"] == "resnet20" and row["metric"] == "top1"
    }
    own = top1.get(f"photomask {flow}")
    others = {name: found for name, found in top1.items() if name.endswith(f" {flow}")}
    others.pop(f"photomask {flow}", None)
    if own is not None and "float" in top1:
        age = _age(rows, f"photomask {flow}")
        named = {name.removesuffix(f" {flow}"): found for name, found in others.items()}
        cells = (f"{top1['float']:.2f} %", f"{own:.2f} %{age}", _best(named, "{:.2f} %"))
        yield f"ResNet-20 on Fashion-MNIST, {words}: accuracy", *cells


def _agreement(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """How often MobileNetV2 predicts what the float network predicts."""
    found = {
        row["implementation"]: float(row["value"]) for row in rows if row["metric"] == "agreement"
    }
    own = found.get("photomask w8a8")
    others = {name: value for name, value in found.items() if not name.startswith("photomask")}
    if own is not None:
        age = _age(rows, "photomask w8a8")
        cells = ("100 %", f"{own:.1f} %{age}", _best(others, "{:.1f} %"))
        yield "MobileNetV2, 8 bits, calibrated: same class as float", *cells


def _best(found: dict[str, float], shown: str, best: Callable[..., str] = max) -> str:
    """Returns the best value with the name of its tool."""
    if not found:
        return "–"
    name = best(found, key=lambda each: found[each])
    return f"{shown.format(found[name])} ({name})"


def _exactness(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Integers of the engine that verifies, beside the oracle's."""
    networks = {row["network"] for row in rows}
    compared = _total(rows, "integers")
    if compared:
        what = f"Integers of {len(networks)} networks on a GPU, compared with the oracle"
        age = f" {MARK}" if any(map(is_outdated, rows)) else ""
        yield what, "–", f"{_total(rows, 'mismatches')} of {compared:,} differ{age}", "–"


def _total(rows: Sequence[Row], metric: str) -> int:
    return sum(int(float(row["value"])) for row in rows if row["metric"] == metric)


def _layer(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Time of the attention of one layer."""
    times = {
        each.name: each.time_ms
        for each in read_points(rows)
        if each.shape == SHAPE and each.tokens == LENGTH and each.image in (None, MAIN_IMAGE)
    }
    others = {name: time for name, time in times.items() if not name.startswith(OURS)}
    sparse = {name: time for name, time in others.items() if name.endswith(SPARSE)}
    dense = {name: time for name, time in others.items() if name not in sparse}
    if PLAN in times and dense:
        what = f"Attention of one layer of {SHAPE}, {LENGTH:,} tokens, 30 % of the heads dense"
        age = _age(rows, PLAN)
        beside = _best(sparse, "{:.0f} ms", min).replace(SPARSE, "")
        yield what, _best(dense, "{:.0f} ms", min), f"{times[PLAN]:.0f} ms{age}", beside


def _first_token(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Time to the first token of a whole prefill."""
    timed = [
        row
        for row in rows
        if row["metric"] == "time to first token" and row["network"] == f"{LENGTH} tokens"
    ]
    times = {row["implementation"]: float(row["value"]) for row in timed}
    dense = {name: time for name, time in times.items() if not name.startswith(OURS)}
    if PLAN in times and dense:
        what = f"Time to the first token of {SHAPE}, {LENGTH:,} tokens, 30 % of the heads dense"
        yield (
            what,
            _best(dense, "{:,.0f} ms", min),
            f"{times[PLAN]:,.0f} ms{_age(timed, PLAN)}",
            "–",
        )

"""Writes the measured figures into README.md, between its two markers, from the rows alone.

Of each subject and metric the newest row counts. Without the markers nothing is written.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import transformer_table
from prefill.points import MAIN_IMAGE, OURS, Point, read_points
from rows import FOLDER, SKIPPED, is_outdated, read

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
START, END = "<!-- figures -->", "<!-- /figures -->"
SHAPES = ("Qwen2.5-VL-7B", "Gemma-3-12B")
"""Of the layers of `prefill_attention.py`."""
PREFILL = "Attention of one prefill layer"
BY_SIZE = f"{PREFILL}, {SHAPES[0]}, by the size of images"
PREFILL_CELLS = (
    "speed over the best dense causal kernel, share of its rate on the visible pairs alone"
)
FIRST_TOKEN = "Time to the first token, Qwen2.5-VL-7B's text model"
PICTURES = {
    f"{PREFILL}, {SHAPES[0]}": "docs/images/prefill_attention.png",
    FIRST_TOKEN: "docs/images/time-to-first-token.png",
}
"""Pictures, from the folder of the README on, and the titles they stand under."""
BESIDE = {transformer_table.WHAT: (transformer_table.SIMULATED,)}
"""Rows of other scripts that a table also shows."""

Row = dict[str, str]
Table = list[tuple[str, ...]]


def main() -> int:
    """Writes, or checks, the section; the exit status of a check is 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    text = arguments.readme.read_text(encoding="utf-8") if arguments.readme.is_file() else ""
    updated = with_figures(text, render(arguments.results))
    if updated is None:
        print(f"{arguments.readme.name} has no {START} ... {END}: nothing to write")
        return 0
    if arguments.check:
        print("up to date" if updated == text else "out of date: run benchmarks/figures.py")
        return int(updated != text)
    arguments.readme.write_text(updated, encoding="utf-8")
    return 0


def with_figures(text: str, figures: str) -> str | None:
    """Returns a text with new figures between its markers; None if it has no markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{start}\n\n{figures}\n\n{end}{after}" if start and end else None


def render(folder: Path) -> str:
    """Returns every table that has rows, as Markdown."""
    sections = []
    for title, name, build in SECTIONS:
        rows = [row for row in read(name, folder) if row["metric"] != SKIPPED]
        beside = [row for other in BESIDE.get(name, ()) for row in read(other, folder)]
        if rows and (table := build([*rows, *beside])):
            origin = f"`benchmarks/{name}.py`, {origin_of(rows)}"
            picture = PICTURES.get(title)
            drawn = f"![{title}]({picture})\n\n" if picture and (ROOT / picture).is_file() else ""
            body = f"{drawn}{markdown(table)}"
            older = outdated(rows)
            mark = f"\n\n{older}" if older else ""
            sections.append(f"**{title}**\n\n{body}\n\n<sub>{origin}</sub>{mark}")
    return "\n\n".join(sections)


def origin_of(rows: Sequence[Row]) -> str:
    """Says on what and when rows were measured."""
    devices = ", ".join(dict.fromkeys(f"{row['device']}" for row in rows))
    last = rows[-1]
    return (
        f"{devices}, {last['cores']} cores, PyTorch {last['torch']}, "
        f"{max(row['date'] for row in rows)[:10]}"
    )


def outdated(rows: Sequence[Row]) -> str:
    """Names the rows that are older than the code they measured, with their dates; may be empty."""
    dates: dict[str, list[str]] = {}
    for row in filter(is_outdated, rows):
        dates.setdefault(row["date"][:10], []).append(f"{row['implementation']}, {row['network']}")
    parts = [f"{'; '.join(dict.fromkeys(names))} ({date})" for date, names in dates.items()]
    return f"*Older than the code: {'; '.join(parts)}.*" if parts else ""


def markdown(table: Table) -> str:
    """Returns rows of cells as a Markdown table; the first is the head."""
    head, *body = table
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def grid(rows: Sequence[Row], corner: str, cell: Callable[[list[Row]], str]) -> Table:
    """Returns one line for each implementation and one column for each network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    table: Table = [(corner, *networks)]
    for name in names:
        cells = [
            cell([r for r in rows if r["implementation"] == name and r["network"] == network])
            for network in networks
        ]
        table.append((_versioned(name, rows), *cells))
    return table


def _versioned(name: str, rows: Sequence[Row]) -> str:
    version = next(row["version"] for row in rows if row["implementation"] == name)
    return f"{name} ({version})" if version != "not installed" else name


def _value(rows: Sequence[Row], metric: str, digits: int, *, unit: bool = True) -> str:
    for row in rows:
        if row["metric"] == metric:
            text = f"{float(row['value']):.{digits}f}"
            return f"{text} {row['unit']}".strip() if unit else text
    return "–"


def accuracy(rows: Sequence[Row]) -> Table:
    """Top-1 of everyone on both networks."""
    images = rows[0]["note"].partition(",")[0]
    return grid(rows, f"top-1, {images}", lambda cell: _value(cell, "top1", 2))


def few_bits(rows: Sequence[Row]) -> Table:
    """Top-1 by width, then by how a network was quantized; the float network first."""

    def place(row: Row) -> tuple[int, str, str]:
        name, _, flow = row["implementation"].partition(", ")
        width = name.rpartition(" ")[2]
        return -int(width[1:].replace("A", "")) if flow else -99, flow, name

    # Whatever machine measured it: the last word on each way counts.
    newest = {(row["implementation"], row["network"], row["metric"]): row for row in rows}
    ordered = sorted(newest.values(), key=place)
    return grid(ordered, "top-1", lambda cell: _value(cell, "top1", 2) + _effort(cell))


def _effort(rows: Sequence[Row]) -> str:
    """Returns the epochs that something took, or the steps a block and the images for them."""
    learned = re.compile(r", (?:(\d+ epochs?)|(\d+ steps) a block, each of \d+ of (\d+ images))")
    found = learned.search(rows[0]["note"]) if rows else None
    return "".join(f", {part}" for part in found.groups() if part) if found else ""


def agreement(rows: Sequence[Row]) -> Table:
    """Agreement with the float network, and signal to noise."""
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    head = f"MobileNetV2, ImageNet weights, {rows[0]['note'].partition(',')[0]}"
    table: Table = [(head, "top-1 agreement with float", "SQNR")]
    for name in names:
        own = [row for row in rows if row["implementation"] == name]
        cells = (_value(own, "agreement", 1), _value(own, "sqnr", 1))
        table.append((_versioned(name, rows), *cells))
    return table


def exactness(rows: Sequence[Row]) -> Table:
    """Integers compared and mismatches."""
    table: Table = [("network", "torch engine on", "images", "integers compared", "mismatches")]
    for row in rows:
        if row["metric"] != "integers":
            continue
        keys = ("network", "implementation", "device")
        own = [r for r in rows if all(r[key] == row[key] for key in keys)]
        label = f"{row['network']}, {row['implementation'].partition(' ')[2]}"
        images = row["note"].partition(" ")[0]
        mismatches = _value(own, "mismatches", 0, unit=False)
        table.append((label, row["device"], images, f"{int(float(row['value'])):,}", mismatches))
    return table


def flow_time(rows: Sequence[Row]) -> Table:
    """Seconds from a float model to integers, beside the peers."""
    table: Table = [("float model to integers", "network", "seconds", "peak memory", "SQNR")]
    for row in rows:
        if row["metric"] in ("float model to integers", "capture to export"):
            keys = ("network", "implementation")
            own = [r for r in rows if all(r[key] == row[key] for key in keys)]
            name = _versioned(row["implementation"], own)
            if row["metric"] == "capture to export":
                name += ", " + row["metric"]
            seconds = _value(own, row["metric"], 1, unit=False)
            cells = (seconds, _value(own, "peak memory", 1), _value(own, "sqnr", 1))
            table.append((name, row["network"], *cells))
    return table


def engine_speed(rows: Sequence[Row]) -> Table:
    """Images per second of the float model and the engines, device by device."""
    speeds = [row for row in rows if row["metric"] == "speed"]
    devices = {row["device"] for row in speeds}
    if len(devices) > 1:
        speeds = [
            {**row, "implementation": f"{row['implementation']}, {row['device']}"} for row in speeds
        ]
    return grid(speeds, "images per second", lambda cell: _value(cell, "speed", 1, unit=False))


def generality(rows: Sequence[Row]) -> Table:
    """Networks that nobody wrote a line for."""
    head = ("timm, random weights", "steps", "integers compared", "mismatches", "SQNR", "seconds")
    table: Table = [head]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        counts = (_value(own, metric, 0, unit=False) for metric in ("steps", "integers"))
        mismatches = _value(own, "mismatches", 0, unit=False)
        times = _value(own, "conversion", 1, unit=False)
        table.append((network, *counts, mismatches, _value(own, "sqnr", 1), times))
    return table


def random_programs(rows: Sequence[Row]) -> Table:
    """Integers compared with the oracle's, of programs drawn at random."""
    programs = rows[0]["note"].partition(",")[0]
    table: Table = [(programs, "integers compared", "mismatches")]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = [row for row in rows if row["implementation"] == name]
        integers = f"{int(_value(own, 'integers', 0, unit=False)):,}"
        table.append((name, integers, _value(own, "mismatches", 0, unit=False)))
    return table


def c_speed(rows: Sequence[Row]) -> Table:
    """Time of an image in compiled C and in ONNX Runtime, and what C got wrong."""
    timed = [row for row in rows if row["metric"] in ("time per image", "mismatches")]
    table = grid(
        [row for row in timed if row["metric"] == "time per image"],
        "milliseconds an image, one thread",
        lambda cell: _value(cell, "time per image", 2, unit=False),
    )
    wrong = (
        _value([row for row in timed if row["network"] == network], "mismatches", 0, unit=False)
        for network in table[0][1:]
    )
    return [*table, ("integers that differ from the oracle's", *wrong)]


def rtl_simulation(rows: Sequence[Row]) -> Table:
    """Whole inferences through the reference design."""
    metrics = {
        "integers compared": 0,
        "mismatches": 0,
        "RTL cycles": 0,
        "formula's cycles": 0,
        "build": 1,
        "run and compare": 1,
    }
    heads = [f"{name}, s" if digits else name for name, digits in metrics.items()]
    table: Table = [("one image", *heads)]
    for network in dict.fromkeys(row["network"] for row in rows if row["metric"] == "build"):
        own = [row for row in rows if row["network"] == network]
        cells = (_value(own, name, digits, unit=False) for name, digits in metrics.items())
        table.append(
            (
                network,
                *(f"{float(cell):,.{d}f}" for cell, d in zip(cells, metrics.values(), strict=True)),
            )
        )
    return table


def prefill_lengths(rows: Sequence[Row], shape: str) -> Table:
    """Time of one layer by the length of the prompt; plans also beside the best dense kernel."""
    found = [each for each in read_points(rows) if each.shape == shape]
    points = [each for each in found if each.image in (None, MAIN_IMAGE)]
    return _prefill_grid(points, [f"{each.tokens:,} tokens" for each in points])


def prefill_images(rows: Sequence[Row], shape: str) -> Table:
    """Time of one layer by the size of images, at the longest prompt that has several sizes."""
    found = [each for each in read_points(rows) if each.shape == shape and each.is_plan]
    sizes = {each.tokens: {e.image for e in found if e.tokens == each.tokens} for each in found}
    several = [tokens for tokens, images in sizes.items() if len(images) > 1]
    points = [each for each in found if several and each.tokens == max(several)]
    columns = [f"{each.tokens:,} tokens, images of {each.image:,}" for each in points]
    return _prefill_grid(points, columns)


def _prefill_grid(points: Sequence[Point], columns: Sequence[str]) -> Table:
    """One line for each peer, then for each plan."""
    found = [
        (point, column)
        for point, column in zip(points, columns, strict=True)
        if point.is_plan or not point.name.startswith(OURS)
    ]
    if not found:
        return []
    cells = {(_name(point), column): _prefill_cell(point) for point, column in found}
    found.sort(key=lambda pair: _place(pair[0]))
    heads = dict.fromkeys(columns)
    lines = [
        (name, *(cells.get((name, column), "–") for column in heads))
        for name in dict.fromkeys(_name(point) for point, _ in found)
    ]
    return [(f"{found[-1][0].note}; {PREFILL_CELLS}", *heads), *lines]


def _place(point: Point) -> tuple[bool, bool, int]:
    """Sorts peers before plans, and plans by their dense heads."""
    return point.is_plan, "Flex" in point.name, point.percent if point.is_plan else 0


def _name(point: Point) -> str:
    return f"{point.name} ({point.version})" if point.version != "not installed" else point.name


def _prefill_cell(point: Point) -> str:
    parts = [f"{point.time_ms:.{2 if point.time_ms < 100 else 1}f} ms"]
    if point.is_plan and point.speed is not None:
        parts.append(f"{point.speed:.2f}×")
    if point.is_plan and point.share is not None:
        parts.append(f"{100 * point.share:.0f} %")
    return ", ".join(parts)


def first_token(rows: Sequence[Row]) -> Table:
    """Time of a whole prefill by the length of the prompt; plans also beside the dense ones."""
    timed = [row for row in rows if row["metric"] == "time to first token"]
    heads = {row["network"]: f"{_tokens(row):,} tokens, {row['device']}" for row in timed}
    table: Table = [("speed over the best dense one", *heads.values())]
    for name in sorted(dict.fromkeys(row["implementation"] for row in timed), key=_is_ours):
        own = [row for row in rows if row["implementation"] == name]
        cells = (_first_token_cell([r for r in own if r["network"] == each]) for each in heads)
        table.append((_versioned(name, timed), *cells))
    return table


def _first_token_cell(rows: Sequence[Row]) -> str:
    time = _value(rows, "time to first token", 0, unit=False)
    speeds = [float(row["value"]) for row in rows if row["metric"].startswith("speed over ")]
    if not rows or not _is_ours(rows[0]["implementation"]) or not speeds:
        return f"{time} ms" if time != "–" else time
    return f"{time} ms, {min(speeds):.2f}×"


def _is_ours(name: str) -> bool:
    return name.startswith(OURS)


def _tokens(row: Row) -> int:
    return int(row["network"].partition(" ")[0])


def head_plans(rows: Sequence[Row]) -> Table:
    """What each plan saves and costs."""
    head = ("plan", "query-key pairs left", "accuracy", "lost", "worst task loses")
    note = next(row["note"] for row in rows if row["metric"] == "density")
    table: Table = [(f"{head[0]}; {note}", *head[1:])]
    for key in dict.fromkeys((row["implementation"], row["network"]) for row in rows):
        own = [row for row in rows if (row["implementation"], row["network"]) == key]
        lost = _value(own, "accuracy lost", 2)
        cells = (_value(own, "density", 1), _value(own, "accuracy", 2), lost)
        name = f"{key[0]} ({key[1].partition(', ')[2]})"
        table.append((name, *cells, _value(own, "worst task loses", 1)))
    table[1:] = sorted(table[1:], key=lambda line: -float(line[1].split()[0]))
    return table


def calibration_cost(rows: Sequence[Row]) -> Table:
    """Time of calibration over that of the prefill it measures."""
    table: Table = [("model", "device", "time over dense prefill", "memory beside it")]
    for row in rows:
        if row["metric"] == "time over dense prefill":
            keys = ("network", "device")
            own = [r for r in rows if all(r[key] == row[key] for key in keys)]
            ratio = f"{float(row['value']):.2f}×"
            memory = _value(own, "memory beside dense", 0)
            table.append((row["network"], row["device"], ratio, memory))
    return table


SECTIONS: tuple[tuple[str, str, Callable[[Sequence[Row]], Table]], ...] = (
    ("Fashion-MNIST accuracy", "accuracy", accuracy),
    ("Few bits: calibrated, reconstructed and trained", "quantizers", few_bits),
    ("A network for ImageNet, on crops of photographs", "mobilenet_v2", agreement),
    ("The same network with weights of four bits", "reconstruction", agreement),
    ("Transformers in integers", transformer_table.WHAT, transformer_table.build),
    ("Every integer is the oracle's", "exactness", exactness),
    ("Random programs, every engine", "random_programs", random_programs),
    ("C beside ONNX Runtime", "c_speed", c_speed),
    ("The reference design in simulation", "rtl_simulation", rtl_simulation),
    ("Time of the flow", "flow_time", flow_time),
    ("Speed of the engines", "engine_speed", engine_speed),
    ("Networks without a line of code about them", "generality", generality),
    ("What a head plan costs in answers", "head_plans", head_plans),
    *((f"{PREFILL}, {s}", "prefill_attention", partial(prefill_lengths, shape=s)) for s in SHAPES),
    (BY_SIZE, "prefill_attention", partial(prefill_images, shape=SHAPES[0])),
    (FIRST_TOKEN, "time_to_first_token", first_token),
    ("What calibrating heads costs", "calibration_cost", calibration_cost),
)

if __name__ == "__main__":
    sys.exit(main())

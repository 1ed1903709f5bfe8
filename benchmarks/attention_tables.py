"""The tables of the attention pipeline: rows that were measured become lines of a table."""

from collections.abc import Sequence

from prefill.points import MAIN_IMAGE, OURS, Point, read_points
from table_cells import Row, Table, value, versioned

PREFILL_CELLS = (
    "speed over the best dense causal kernel, share of its rate on the visible pairs alone"
)


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
        table.append((versioned(name, timed), *cells))
    return table


def _first_token_cell(rows: Sequence[Row]) -> str:
    time = value(rows, "time to first token", 0, unit=False)
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
        lost = value(own, "accuracy lost", 2)
        cells = (value(own, "density", 1), value(own, "accuracy", 2), lost)
        name = f"{key[0]} ({key[1].partition(', ')[2]})"
        table.append((name, *cells, value(own, "worst task loses", 1)))
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
            memory = value(own, "memory beside dense", 0)
            table.append((row["network"], row["device"], ratio, memory))
    return table

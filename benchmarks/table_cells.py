"""What the tables of figures are made of: cells of measured values, and grids of them."""

from collections.abc import Callable, Sequence

Row = dict[str, str]
Table = list[tuple[str, ...]]


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
        table.append((versioned(name, rows), *cells))
    return table


def versioned(name: str, rows: Sequence[Row]) -> str:
    """Returns the name of an implementation with the version that was measured."""
    version = next(row["version"] for row in rows if row["implementation"] == name)
    return f"{name} ({version})" if version != "not installed" else name


def value(rows: Sequence[Row], metric: str, digits: int, *, unit: bool = True) -> str:
    """Returns the value of a metric as text; a dash where no row has it."""
    for row in rows:
        if row["metric"] == metric:
            text = f"{float(row['value']):.{digits}f}"
            return f"{text} {row['unit']}".strip() if unit else text
    return "–"

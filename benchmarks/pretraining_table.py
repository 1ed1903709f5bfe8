"""The table of `pretraining.py`: accuracy by how a network started, and by the labels it got."""

from collections.abc import Sequence

from table_cells import Row, Table, value, versioned

COLUMNS = (
    ("w8a8_1%", "1 % of the labels, W8A8"),
    ("w8a8_10%", "10 % of the labels, W8A8"),
    ("float_1%", "1 %, float"),
    ("float_10%", "10 %, float"),
    ("mnist_w8a8", "1 % of MNIST's labels, W8A8"),
    ("probe", "linear probe"),
)
"""The metrics of the rows, and what their columns are called."""


def build(rows: Sequence[Row]) -> Table:
    """Returns one line for each network and start."""
    table: Table = [("network, start", *(title for _, title in COLUMNS))]
    for network, name in dict.fromkeys((row["network"], row["implementation"]) for row in rows):
        own = [r for r in rows if (r["network"], r["implementation"]) == (network, name)]
        cells = (value(own, metric, 2) for metric, _ in COLUMNS)
        table.append((f"{network}, {versioned(name, rows)}", *cells))
    return table

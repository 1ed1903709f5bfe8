"""Where the nodes and edges of a program are drawn: one row for each, in lanes like branches."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One node of the graph: an input or a step.

    Attributes:
        name: of the input or the step.
        inputs: the edges that it reads.
        output: the edge that it makes.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Line:
    """One edge of the graph, drawn from the row that makes it to the rows that read it.

    Attributes:
        edge: its name.
        lane: the column in which it runs down.
        start: the number of the row that makes it.
        readers: the numbers of the rows that read it, in order; empty for an output that none does.
    """

    edge: str
    lane: int
    start: int
    readers: tuple[int, ...]


@dataclass(frozen=True)
class Lanes:
    """A drawing as numbers.

    Attributes:
        nodes: the lane of each row's node.
        lines: the edges, in the order of the rows that make them.
        count: how many lanes there are.
    """

    nodes: tuple[int, ...]
    lines: tuple[Line, ...]
    count: int


def assign_lanes(rows: Sequence[Row]) -> Lanes:
    """Gives every edge a lane that no other edge has while it runs, as `git log --graph` does.

    A node stands in the lane of the first edge that ends at it, so that a chain is a straight line;
    a node at which none ends stands in the first free lane. The edge that it makes runs on there.

    Args:
        rows: in the order of computation.
    """
    readers: dict[str, list[int]] = {row.output: [] for row in rows}
    for number, row in enumerate(rows):
        for edge in dict.fromkeys(row.inputs):
            readers[edge].append(number)
    taken: list[str | None] = []
    nodes: list[int] = []
    lines: list[Line] = []
    for number, row in enumerate(rows):
        ending = [lane for lane, edge in enumerate(taken) if edge and readers[edge][-1] == number]
        free = [lane for lane, edge in enumerate(taken) if edge is None]
        lane = (ending or free or [len(taken)])[0]
        for other in ending:
            taken[other] = None
        if lane == len(taken):
            taken.append(None)
        nodes.append(lane)
        lines.append(Line(row.output, lane, number, tuple(readers[row.output])))
        if readers[row.output]:
            taken[lane] = row.output
    return Lanes(tuple(nodes), tuple(lines), len(taken))

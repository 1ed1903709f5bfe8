"""Groups the steps that become one C function, and gives everything in C a name."""

from dataclasses import dataclass

from photomask.chip.forms.c.text import identifiers, stem
from photomask.chip.operators import Requantize
from photomask.chip.program import IntegerProgram, Step

OWN_STARTS = (
    "step_",
    "floor_shift",
    "round_",
    "products_",
    "sparse_",
    "holds_",
    "mem",
    "root_",
    "inverse_",
)
"""The beginnings of our own names, which no edge's name may have."""
OWN_ENDS = (
    "_of", "_columns", "_weight", "_bias", "_multiplier", "_shift", "_table", "_index", "_value",
    "_mask", "_gain", "_factor", "_steps", "_pairs", "_places", "_at",
)  # fmt: skip
"""The endings of names that are derived from a step's name."""


@dataclass(frozen=True)
class Unit:
    """A step, and the requantization that its sums go through at once, if there is one."""

    step: Step
    requantize: Step | None = None

    @property
    def output(self) -> str:
        """The edge that the unit writes."""
        return (self.requantize or self.step).output

    @property
    def rescaling(self) -> tuple[Step, Requantize] | None:
        """The requantization through which results are stored, with its step.

        It is the requantization behind the step, or the step itself.
        """
        step = self.requantize or self.step
        return (step, step.operator) if isinstance(step.operator, Requantize) else None


def units_of(program: IntegerProgram, keep_edges: bool) -> list[Unit]:
    """Groups steps so that a sum which only a requantization reads is never stored.

    Args:
        program: the program to run.
        keep_edges: whether every edge must be in memory at the end. Then no steps are grouped.
    """
    if keep_edges:
        return [Unit(step) for step in program.steps]
    units: list[Unit] = []
    absorbed: set[str] = set()
    for step in program.steps:
        if step.name in absorbed:
            continue
        behind = program.links.rescaling(step) if step.operator.accumulates else None
        units.append(Unit(step, behind))
        if behind is not None:
            absorbed.add(behind.name)
    return units


@dataclass(frozen=True)
class Names:
    """C identifiers that are all different."""

    steps: dict[str, str]
    edges: dict[str, str]


def names_of(program: IntegerProgram, name: str) -> Names:
    """Returns an identifier for every step, which begins with `step_`, and for every edge."""
    steps = [f"step_{step.name}" for step in program.steps]
    edges = [_edge_stem(edge, name) for edge in program.edges]
    found = identifiers([*steps, *edges], OWN_ENDS)
    count = len(steps)
    return Names(
        dict(zip((step.output for step in program.steps), found[:count], strict=True)),
        dict(zip(program.edges, found[count:], strict=True)),
    )


def _edge_stem(edge: str, name: str) -> str:
    plain = stem(edge)
    own = plain.startswith((*OWN_STARTS, name)) or plain.upper() == plain
    return f"edge_{plain}" if own else plain

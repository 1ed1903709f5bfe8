"""Every single fault that a valid program can have: a wrong integer, attribute or claim."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError
from tests.chip.verification.altered import altered

from photomask.chip import IntegerProgram
from photomask.chip.program import Edge, Step
from photomask.errors import DocumentError


@dataclass(frozen=True)
class Fault:
    """One change of a program."""

    kind: str
    """What is changed of which kind of step or edge."""
    where: str
    changes: dict[str, Any]

    def planted(self, program: IntegerProgram) -> IntegerProgram | None:
        """Returns the program with this fault; None where no program may have it."""
        try:
            return altered(program, **self.changes)
        except (DocumentError, ValueError, ArithmeticError, IndexError):
            return None


def every_fault(program: IntegerProgram) -> Iterator[Fault]:
    """Yields changes; of every tensor the first, the middle and the last entry, up and down."""
    for step in program.steps:
        operator = step.operator.kind
        for field, value, changed in _of_step(step):
            where = f"{step.name}: {field} = {value}"
            yield Fault(f"{operator} {field}", where, {"steps": {step.name: changed}})
        for role, key in step.tensors.items():
            for name, values in _of_tensor(program.tensors[key]):
                where = f"{step.name}: {role}{name}"
                yield Fault(f"{operator} {role}", where, {"tensors": {key: values}})
    for edge in program.edges.values():
        for field, changed in _of_edge(edge):
            where = f"{edge.name}: {field}"
            yield Fault(f"{edge.role} {field}", where, {"edges": {edge.name: changed}})


def one_of_each_kind(program: IntegerProgram) -> dict[str, IntegerProgram]:
    """Returns a program for each kind of fault, by the first place that can have it."""
    found: dict[str, IntegerProgram] = {}
    kinds: set[str] = set()
    for fault in every_fault(program):
        if fault.kind in kinds:
            continue
        wrong = fault.planted(program)
        if wrong is not None:
            kinds.add(fault.kind)
            found[f"{fault.kind}, {fault.where}"] = wrong
    return found


def _of_step(step: Step) -> Iterator[tuple[str, object, Step]]:
    operator = step.operator
    for field, value in operator.model_dump().items():
        for other in _others(field, value):
            try:
                changed = type(operator).model_validate(operator.model_dump() | {field: other})
            except ValidationError:
                continue
            yield field, other, step.model_copy(update={"operator": changed})
    for field in ("relative_error", "worst_error", "divisors"):
        value = getattr(step, field)
        if value is not None:
            other = tuple(n + 1 for n in value) if field == "divisors" else value / 2 + 1e-9
            yield field, other, step.model_copy(update={field: other})
    if len(step.inputs) > 1:
        changed = step.model_copy(update={"inputs": step.inputs[::-1]})
        yield "inputs", changed.inputs, changed


def _others(field: str, value: Any) -> list[Any]:
    """Returns values that are near the right one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if field == "rounding":
        return [mode for mode in ("half_even", "truncate", "half_up", "double") if mode != value]
    if isinstance(value, tuple) and value:
        first = [(other, *value[1:]) for other in _others(field, value[0])]
        return first + [(*value[:-1], other) for other in _others(field, value[-1])]
    return []


def _of_tensor(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for position in sorted({0, values.size // 2, values.size - 1}):
        for delta in (-1, 1):
            changed = values.copy()
            changed.flat[position] += delta
            yield f"[{position}] {delta:+}", changed


def _of_edge(edge: Edge) -> Iterator[tuple[str, Edge]]:
    scale = (edge.scale[0] * 1.01, *edge.scale[1:])
    changes: Mapping[str, Any] = {"scale": scale, "zero_point": edge.zero_point + 1}
    for field, value in changes.items():
        yield field, edge.model_copy(update={field: value})

"""Programs that differ from another one in a single integer."""

import numpy as np

from photomask.chip import IntegerProgram
from photomask.chip.program import Edge, Step


def altered(
    program: IntegerProgram,
    tensors: dict[str, np.ndarray] | None = None,
    steps: dict[str, Step] | None = None,
    edges: dict[str, Edge] | None = None,
) -> IntegerProgram:
    """Returns a valid program with other tensors, steps or edges; proven ranges follow."""
    values = {**program.tensors, **(tensors or {})}
    meanings = {**program.edges, **(edges or {})}
    edges = {name: meanings[name] for name in program.inputs}
    changed = [(steps or {}).get(step.name, step) for step in program.steps]
    for step in changed:
        inputs = [edges[name].interval for name in step.inputs]
        parameters = {role: values[name] for role, name in step.tensors.items()}
        interval = step.operator.output_interval(inputs, parameters)
        edge = meanings[step.output]
        edges[edge.name] = edge.model_copy(update={"low": interval.low, "high": interval.high})
    return IntegerProgram(
        target=program.target,
        inputs=program.inputs,
        outputs=program.outputs,
        edges=list(edges.values()),
        steps=changed,
        tensors=values,
        formats=program.formats,
        provenance=program.provenance,
    )


def with_changed_entry(program: IntegerProgram, name: str, delta: int) -> IntegerProgram:
    """Adds `delta` to one entry of a tensor, away from the ends of its format."""
    tensor = program.tensors[name].copy()
    format = program.formats[name]
    room = (tensor + delta > format.low + 1) & (tensor + delta < format.high)
    position = tuple(np.argwhere(room)[0])
    tensor[position] += delta
    return altered(program, {name: tensor})

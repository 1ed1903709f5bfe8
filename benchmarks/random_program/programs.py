"""Random valid integer programs over every operator, and random codes for their inputs."""

from collections.abc import Sequence

import numpy as np

from photomask.chip.program import IntegerProgram

from .growth import MOST_STEPS, Growth
from .source import Source
from .steps import GROWTHS

ATTEMPTS = 400
EAGER = ("convolution", "convolution", "convolution", "requantize", "add", "linear")
"""What real networks are made of comes more often."""


def random_program(seed: int) -> IntegerProgram:
    """Makes a valid program of 1 to 12 steps; the same one for the same seed.

    Every step is checked as it is drawn, so that no seed gives a program that is refused.

    Its outputs are the edges that no step reads, and sometimes one that a step reads.
    """
    source = Source(seed)
    grow = Growth(source)
    for _ in range(source.pick(1, 1, 2, 3)):
        grow.new_input()
    wanted = source.integer(1, MOST_STEPS)
    for _ in range(ATTEMPTS):
        if len(grow.steps) >= wanted:
            break
        try:
            GROWTHS[source.pick(*GROWTHS, *EAGER)](grow)
        except ValueError:
            continue  # does not fit here: draw again
    read = {name for step in grow.steps for name in step.inputs}
    outputs = [step.output for step in grow.steps if step.output not in read]
    if source.integer(0, 2) == 0:
        outputs.append(source.pick(*grow.edges))
    return grow.build(*dict.fromkeys(outputs))


def random_codes(program: IntegerProgram, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random codes for every input, with the ends of the intervals often among them."""
    source = Source(seed)
    return {
        name: source.codes(program.edges[name].interval, (batch, *program.edges[name].shape[1:]))
        for name in program.inputs
    }


def merged(programs: Sequence[IntegerProgram]) -> IntegerProgram:
    """Puts programs side by side in one: engines that compile need to compile once."""
    edges = []
    steps = []
    tensors = {}
    formats = {}
    for index, program in enumerate(programs):
        mark = f"{index}/"
        edges += [e.model_copy(update={"name": mark + e.name}) for e in program.edges.values()]
        steps += [
            step.model_copy(
                update={
                    "name": mark + step.name,
                    "inputs": tuple(mark + name for name in step.inputs),
                    "output": mark + step.output,
                    "tensors": {role: mark + name for role, name in step.tensors.items()},
                }
            )
            for step in program.steps
        ]
        tensors |= {mark + name: value for name, value in program.tensors.items()}
        formats |= {mark + name: value for name, value in program.formats.items()}
    return IntegerProgram(
        target=programs[0].target,
        inputs=[f"{i}/{name}" for i, program in enumerate(programs) for name in program.inputs],
        outputs=[f"{i}/{name}" for i, program in enumerate(programs) for name in program.outputs],
        edges=edges,
        steps=steps,
        tensors=tensors,
        formats=formats,
        provenance={"made_by": "a test"},
    )

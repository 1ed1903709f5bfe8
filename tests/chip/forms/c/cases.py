"""All cases of the operators side by side in one program, so that C is compiled once."""

import math

import numpy as np
from tests.chip.operators.operator_cases import GENERATORS, Case, Source
from tests.chip.programs import ProgramBuilder

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.operators import Constant
from photomask.chip.program import Edge, IntegerProgram

BATCHES = 60
"""A multiple of every case's batch."""


def program_of_cases(
    kinds: list[str], seeds: range
) -> tuple[IntegerProgram, dict[str, np.ndarray]]:
    """Returns a program with a step for every case, and codes for its inputs."""
    make = ProgramBuilder()
    codes = {}
    outputs = []
    for kind in kinds:
        for seed in seeds:
            outputs.append(_add(make, f"{kind}_{seed}", GENERATORS[kind](Source(seed)), codes))
    if not make.inputs:  # constants alone
        make.input("unused", (1, 1))
        codes["unused"] = np.zeros((BATCHES, 1), np.int64)
    return make.build(*outputs), codes


def _add(make: ProgramBuilder, name: str, case: Case, codes: dict[str, np.ndarray]) -> str:
    names = []
    batch = max((len(x) for x in case.inputs), default=1)
    for index, (x, interval) in enumerate(zip(case.inputs, case.intervals, strict=True)):
        edge = f"{name}.x{index}"
        if len(x) < batch:  # the same for every sample
            found = Interval(int(x.min()), int(x.max()))
            format = IntFormat.holding(found)
            make.step(edge, Constant(), [], {"value": x}, {"value": format}, format=format)
        else:
            make.inputs.append(edge)
            make.edges[edge] = Edge(
                name=edge, shape=(1, *x.shape[1:]), format=IntFormat.holding(interval),
                low=interval.low, high=interval.high, scale=(1.0,), zero_point=0, role="input",
            )  # fmt: skip
            codes[edge] = np.tile(x, (BATCHES // batch, *(1,) * (x.ndim - 1)))
        names.append(edge)
    intervals = [make.edges[edge].interval for edge in names]
    formats = {
        role: IntFormat.holding(Interval(int(t.min()), int(t.max())))
        for role, t in case.parameters.items()
    }
    output = IntFormat.holding(case.operator.output_interval(intervals, case.parameters))
    assert all(math.prod(make.edges[edge].shape) for edge in names)
    return make.step(name, case.operator, names, case.parameters, formats, format=output)

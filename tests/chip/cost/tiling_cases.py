"""Random products, machines of any size, and programs of one step."""

import numpy as np
from hypothesis import strategies as st
from tests.chip.operators.operator_cases import Case
from tests.chip.programs import ProgramBuilder

from photomask.chip.cost.accelerator import PRESETS, Accelerator, Dataflow
from photomask.chip.cost.products import Product
from photomask.chip.formats import IntFormat
from photomask.chip.operators import SpatialAxis
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram

DATAFLOWS: tuple[Dataflow, ...] = ("weight_stationary", "output_stationary", "input_stationary")


def machine(
    rows: int = 4,
    columns: int = 4,
    weights: int = 64,
    activations: int = 64,
    sums: int = 64,
    dataflow: Dataflow = "weight_stationary",
) -> Accelerator:
    return PRESETS["reference"].model_copy(
        update={
            "rows": rows,
            "columns": columns,
            "weight_buffer_bytes": weights,
            "activation_buffer_bytes": activations,
            "accumulator_buffer_bytes": sums,
            "dataflow": dataflow,
            "weight_bits": 64,
            "activation_bits": 64,
            "accumulator_bits": 64,
        }
    )


machines = st.builds(
    machine,
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    weights=st.integers(16, 400),
    activations=st.integers(16, 400),
    sums=st.integers(16, 800),
    dataflow=st.sampled_from(DATAFLOWS),
)


@st.composite
def axes(draw: st.DrawFn) -> SpatialAxis:
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    output = draw(st.integers(1, 5))
    reach = (output - 1) * stride + (kernel - 1) * dilation + 1
    size = max(1, reach - padding + draw(st.integers(-1, 2)))
    return SpatialAxis(size, output, kernel, stride, dilation, padding)


packings = st.builds(
    Packing,
    format=st.builds(IntFormat, bits=st.integers(2, 9), signed=st.just(True)),
    word_bits=st.sampled_from([8, 24, 32]),
    first_lane=st.just("least_significant"),
)
products = st.builds(
    Product,
    groups=st.integers(1, 3),
    channels_out=st.integers(1, 7),
    channels_in=st.integers(1, 7),
    rows=axes(),
    columns=axes(),
    weight=packings,
    activation=packings,
)


def program_of(case: Case) -> IntegerProgram:
    """A program of one step."""
    make = ProgramBuilder()
    names = []
    for position, (value, interval) in enumerate(zip(case.inputs, case.intervals, strict=True)):
        format = IntFormat.holding(interval)
        shape = (1, *value.shape[1:])
        names.append(make.input(f"x{position}", shape, bits=format.bits, signed=format.signed))
    formats = {
        role: IntFormat(bits=max(2, int(np.abs(tensor).max()).bit_length() + 1), signed=True)
        for role, tensor in case.parameters.items()
    }
    edges = [make.edges[name].interval for name in names]
    sums = IntFormat.holding(case.operator.output_interval(edges, case.parameters))
    make.step("step", case.operator, names, case.parameters, formats, format=sums)
    return make.build("step")

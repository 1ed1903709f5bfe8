"""Every operator gives the oracle's integers in ONNX Runtime, at every width."""

import numpy as np
import pytest
from tests.chip.operators.operator_cases import GENERATORS, Case, Source

from photomask.chip.engines import OnnxEngine
from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.onnx import OnnxForm
from photomask.chip.operators import OPERATORS, Convolution, Linear, Operator, Requantize
from photomask.chip.program import Edge, IntegerProgram, NumpyEngine, Step
from photomask.chip.target import PRESETS, Rounding

pytest.importorskip("onnxruntime")

SEEDS = range(24)


def edge_of(name: str, shape: tuple[int, ...], interval: Interval, role: str = "input") -> Edge:
    return Edge(
        name=name,
        shape=(1, *shape[1:]),
        format=IntFormat.holding(interval),
        low=interval.low,
        high=interval.high,
        scale=(1.0,),
        zero_point=0,
        role=role,  # type: ignore[arg-type]
    )


def program_of(case: Case) -> tuple[IntegerProgram, dict[str, np.ndarray]]:
    """A program of one step, and its inputs; codes reach all of each input's format."""
    operator, parameters = case.operator, case.parameters
    batch = max((len(x) for x in case.inputs), default=1)
    codes = {
        f"x{position}": np.ascontiguousarray(np.broadcast_to(x, (batch, *x.shape[1:])))
        for position, x in enumerate(case.inputs)
    }
    intervals = [IntFormat.holding(interval).interval for interval in case.intervals]
    edges = [edge_of(*pair, i) for pair, i in zip(shapes(codes), intervals, strict=True)]
    shape = operator.output_shape([edge.shape for edge in edges], parameters)
    result = edge_of("y", shape, operator.output_interval(intervals, parameters), "accumulator")
    step = Step(
        name="step",
        operator=operator,  # type: ignore[arg-type]
        inputs=tuple(codes),
        output="y",
        tensors={role: f"step.{role}" for role in parameters},
        node="node",
        source="model.py:1",
    )
    if not codes:
        codes = {"unused": np.zeros((2, 1), dtype=np.int64)}
        edges = [edge_of("unused", (1, 1), Interval(0, 1))]
    program = IntegerProgram(
        target=PRESETS["asic"],
        inputs=list(codes),
        outputs=["y"],
        edges=[*edges, result.model_copy(update={"shape": shape})],
        steps=[step],
        tensors={f"step.{role}": value for role, value in parameters.items()},
        formats={
            f"step.{role}": IntFormat.holding(Interval(int(v.min()), int(v.max())))
            for role, v in parameters.items()
        },
        provenance={},
    )
    return program, codes


def shapes(codes: dict[str, np.ndarray]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, value.shape) for name, value in codes.items()]


def assert_exact(case: Case) -> None:
    program, codes = program_of(case)
    found = dict(OnnxEngine(program).edges(codes))
    for name, expected in NumpyEngine(program).edges(codes):
        np.testing.assert_array_equal(found[name], expected, err_msg=str(case.operator))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_written(operator: type[Operator]):
    assert OnnxForm().refusal(operator) is None


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_random_cases_are_exact(kind: str):
    drawn = 0
    for seed in SEEDS:
        case = GENERATORS[kind](Source(seed))
        formats = [IntFormat.holding(interval).interval for interval in case.intervals]
        try:
            case.operator.output_interval(formats, case.parameters)
        except ValueError:
            continue  # a table or a rescaling that does not reach the ends of the format
        assert_exact(case)
        drawn += 1
    assert drawn >= len(SEEDS) // 3


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_rescaling_is_exact_for_every_shift_up_to_the_ends_of_int64(rounding: Rounding, bits: int):
    shift = np.arange(63)
    source = Source(bits)
    interval = IntFormat(bits=bits, signed=True).interval
    largest = min((1 << 31) - 1, ((1 << 62) + (1 << 61)) >> (bits - 1))
    multiplier = source.codes(Interval(0, largest), (63,))
    for low, high in ((-128, 127), (-(1 << 40), 1 << 40)):
        operator = Requantize(rounding=rounding, offset=0, zero_point=3, low=low, high=high)
        x = source.codes(interval, (8, 63))
        x[0] = interval.low
        x[1] = interval.high
        x[2:4] = source.integer(-2, 1)
        parameters = {"multiplier": multiplier, "shift": shift}
        assert_exact(Case(operator, [x], [interval], parameters))


@pytest.mark.parametrize("rounding", Rounding)
def test_ties_are_exact(rounding: Rounding):
    """Halves of both signs at every shift; the double rounding's first half too."""
    shift = np.repeat(np.arange(1, 40), 4)
    multiplier = np.tile([1, 3, 5, 7], 39) << np.maximum(shift - 9, 0)
    x = np.arange(-(1 << 8), 1 << 8)[:, None].repeat(len(shift), 1)
    operator = Requantize(rounding=rounding, offset=0, zero_point=0, low=-9999, high=9999)
    parameters = {"multiplier": multiplier % (1 << 31), "shift": shift}
    assert_exact(Case(operator, [x], [Interval(-256, 255)], parameters))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("weight", [-128, 127, 255])
def test_products_at_the_ends_never_saturate(signed: bool, weight: int):
    """Sums of two products of 255 by 127 exceed 16 bits, where some kernels stop."""
    interval = IntFormat(bits=8, signed=signed).interval
    shape = (4, 32, 3, 3)
    parameters = {"weight": np.full(shape, weight), "bias": np.zeros(4, dtype=np.int64)}
    convolution = Convolution(
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        groups=1,
        padding_value=interval.low,
    )
    for end in (interval.low, interval.high):
        x = np.full((2, 32, 5, 5), end)
        assert_exact(Case(convolution, [x], [interval], parameters))
        flat = {"weight": np.full((4, 288), weight), "bias": parameters["bias"]}
        assert_exact(Case(Linear(), [np.full((2, 288), end)], [interval], flat))


def test_sums_beyond_32_bits_take_narrower_limbs():
    """40,000 products of 8 by 8 bits: ConvInteger's own sums would overflow."""
    parameters = {"weight": np.full((2, 40_000), 255), "bias": np.array([-7, 1 << 33])}
    x = np.full((2, 40_000), 255)
    x[1] = np.arange(40_000) % 256
    assert_exact(Case(Linear(), [x], [Interval(0, 255)], parameters))

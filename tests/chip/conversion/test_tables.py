"""Functions of one number as tables: whole, or lines between entries; their errors are stated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photomask.chip import IntegerProgram, Recipe, Rule, calibrate, convert, export, prepare
from photomask.chip.engines import CEngine, OnnxEngine, TorchEngine
from photomask.chip.forms.qdq import qdq_model
from photomask.chip.forms.qonnx import qonnx_model
from photomask.chip.observers import Percentile
from photomask.chip.operators import Interpolate, Lookup, Softmax
from photomask.chip.operators.softmax import EXPONENT_BITS
from photomask.chip.program import NumpyEngine
from photomask.chip.quantizers import Quantizer
from photomask.chip.target import PRESETS, Target
from photomask.errors import ExportError, TargetError


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


FUNCTIONS = {
    "gelu": (torch.nn.functional.gelu, 4.3),
    "silu": (torch.nn.functional.silu, 2.9),
    "tanh": (torch.tanh, 24.0),
    "sigmoid": (torch.sigmoid, 6.2),
    "exp": (torch.exp, 60.0),
}
"""Each with its largest error in units of the last place, 256 entries over 16 bits."""


def program_of(function, entries: int, bits: int = 16, observer=None, **target) -> IntegerProgram:
    torch.manual_seed(0)
    x = torch.randn(64, 16) * 3
    results = Quantizer(bits, symmetric=False, observer=observer)
    recipe = Recipe(
        activation=Quantizer(bits, symmetric=False),
        rules=(Rule("re:(?!x$).*", activation=results),),
    )
    prepared = prepare(Function(function), recipe, x[:1])
    calibrate(prepared, x)
    narrow = PRESETS["asic"].model_copy(update={"table_entries": entries, **target})
    return convert(prepared, Target.model_validate(narrow.model_dump()))


def every_code(program: IntegerProgram) -> dict[str, np.ndarray]:
    """All codes of the input, whatever its shape, as samples."""
    edge = program.edges[program.inputs[0]]
    codes = np.arange(edge.format.low, edge.format.high + 1)
    return {edge.name: codes.reshape(-1, *edge.shape[1:])}


def worst_error(program: IntegerProgram, function) -> float:
    """The distance of every result from the real one, in units of the result's last place."""
    codes, x = every_code(program), program.edges[program.inputs[0]]
    y = program.edges[program.outputs[0]]
    found = NumpyEngine(program).run(codes)[y.name]
    exact = function((torch.from_numpy(codes[x.name]).double() - x.zero_point) * x.scale[0])
    units = (exact / y.scale[0] + y.zero_point).clamp(y.format.low, y.format.high)
    return float((torch.from_numpy(found) - units).abs().max())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_of_lines_is_the_largest_there_is(name: str):
    function, most = FUNCTIONS[name]
    program = program_of(function, 256)
    interpolate, requantize = program.steps
    assert isinstance(interpolate.operator, Interpolate)
    assert len(program.tensors[interpolate.tensors["table"]]) == 257
    assert requantize.worst_error == pytest.approx(worst_error(program, function), rel=1e-9)
    assert 0.5 < requantize.worst_error < most


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_whole_table_is_rounded_once(name: str):
    function, _ = FUNCTIONS[name]
    program = program_of(function, 256, bits=8)
    (lookup,) = program.steps
    assert isinstance(lookup.operator, Lookup)
    assert lookup.worst_error == pytest.approx(worst_error(program, function), rel=1e-9)
    assert lookup.worst_error <= 0.5 + 1e-9


def test_four_times_the_entries_take_errors_above_rounding_down_sixteenfold():
    coarse, fine = (program_of(torch.tanh, entries) for entries in (64, 256))
    errors = [program.steps[-1].worst_error or 0.0 for program in (coarse, fine)]
    assert errors[0] > 14 * errors[1]


def test_every_engine_reads_every_code_alike():
    program = program_of(torch.nn.functional.gelu, 100)
    assert program.steps[0].operator == Interpolate(first=0, step_bits=10)
    codes, output = every_code(program), program.outputs[0]
    expected = NumpyEngine(program).run(codes)[output]
    tensors = {name: torch.from_numpy(value) for name, value in codes.items()}
    found = {
        "torch": TorchEngine(program).run(tensors)[output].numpy(),
        "C": CEngine(program, compiler="cc -O1").run(codes)[output],
        "ONNX": OnnxEngine(program).run(codes)[output],
    }
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_the_qdq_form_computes_the_same_function():
    onnxruntime = pytest.importorskip("onnxruntime")
    program = program_of(torch.nn.functional.gelu, 256)
    session = onnxruntime.InferenceSession(qdq_model(program).SerializeToString())
    x, y = (program.edges[name] for name in (program.inputs[0], program.outputs[0]))
    codes = every_code(program)
    real = ((codes[x.name] - x.zero_point) * x.scale[0]).astype(np.float32)
    expected = (NumpyEngine(program).run(codes)[y.name] - y.zero_point) * y.scale[0]
    found = session.run(None, {session.get_inputs()[0].name: real})[0]
    assert np.abs(found - expected).max() <= 1.01 * y.scale[0]


def test_qonnx_refuses_lines_by_name():
    with pytest.raises(
        ExportError, match=r"step .tanh.accumulator. \(interpolate.*QONNX has only whole tables"
    ):
        qonnx_model(program_of(torch.tanh, 256))


def test_the_table_is_a_file_of_the_export(tmp_path):
    program = program_of(torch.tanh, 256)
    manifest = export(program, tmp_path / "chip", every_code(program), samples=1)
    (table,) = (record for record in manifest.memory if record.role == "table")
    assert table.path == "memory/tanh.accumulator/table.hex"
    assert (table.shape, table.step) == ((257,), "tanh.accumulator")
    assert manifest.steps[-1].worst_error == program.steps[-1].worst_error


def test_an_accumulator_too_narrow_for_lines_is_refused():
    with pytest.raises(TargetError, match=r"tanh.*table entries 2\*\*8 codes apart needs 27 bits"):
        program_of(torch.tanh, 256, accumulator_bits=24)


def test_lines_saturate_where_the_format_ends():
    program = program_of(torch.square, 1024, observer=Percentile(95.0))
    assert worst_error(program, torch.square) < 2
    codes = NumpyEngine(program).run(every_code(program))[program.outputs[0]]
    assert np.mean(codes == program.edges[program.outputs[0]].format.high) > 0.2


def softmax_program(terms: int, entries: int = 1 << 16, bits: int = 8) -> IntegerProgram:
    torch.manual_seed(0)
    x = torch.randn(64, 3, terms) * 2
    recipe = Recipe(activation=Quantizer(bits, symmetric=False))
    prepared = prepare(Function(lambda x: torch.softmax(x, -1)), recipe, x[:1])
    calibrate(prepared, x)
    return convert(prepared, PRESETS["asic"].model_copy(update={"table_entries": entries}))


SOFTMAX = softmax_program(50)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 255), min_size=50, max_size=50), st.integers(0, 255))
def test_a_share_is_within_the_stated_error_of_the_real_one(codes: list[int], least: int):
    step = SOFTMAX.steps[0]
    assert isinstance(step.operator, Softmax)
    rows = np.array([[codes, sorted(max(code, least) for code in codes), [least] * 49 + [255]]])
    found = dict(NumpyEngine(SOFTMAX).edges({SOFTMAX.inputs[0]: rows}))[step.output]
    scores = torch.from_numpy(rows).double() * SOFTMAX.edges[SOFTMAX.inputs[0]].scale[0]
    exact = torch.softmax(scores, -1) * 2**EXPONENT_BITS
    assert step.worst_error is not None
    assert float((torch.from_numpy(found) - exact).abs().max()) <= step.worst_error


def test_exponents_beyond_the_targets_tables_are_refused():
    with pytest.raises(TargetError, match=r"the exponentials of its scores need a table of \d+"):
        softmax_program(5, entries=256, bits=16)


@pytest.mark.parametrize("entries", [256, 64])
def test_entries_that_are_infinite_saturate_and_what_is_no_number_is_its_neighbours(entries: int):
    """The data stay positive; codes of 0 and below are there all the same."""

    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x)

    torch.manual_seed(0)
    x = torch.rand(64, 16) + 0.1
    activation = Quantizer(8, symmetric=True, signed=True)
    prepared = prepare(Logarithm(), Recipe(activation=activation), x[:1])
    calibrate(prepared, x)
    narrow = PRESETS["asic"].model_copy(update={"table_entries": entries})
    program = convert(prepared, narrow)
    codes = np.arange(-128, 128)
    found = NumpyEngine(program).run({"x": np.repeat(codes[:, None], 16, axis=1)})
    found = found[program.outputs[0]][:, 0]
    low = program.edges[program.outputs[0]].format.low
    assert found[codes == 0] == low
    assert set(found[codes < 0].tolist()) == {low}
    if entries == 256:
        edge, scale = program.edges[program.outputs[0]], program.edges["x"].scale[0]
        wanted = np.log(codes[codes > 0] * scale) / edge.scale[0] + edge.zero_point
        assert np.abs(found[codes > 0] - np.maximum(wanted, low)).max() <= 0.5 + 1e-6

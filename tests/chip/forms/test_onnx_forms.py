"""The four forms of ONNX: they are written, read back beside the oracle, and faults are found."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.chip.forms.deeploy.test_model import Network, codes_of, program_of
from tests.chip.programs import ProgramBuilder, small_builder

from photomask.chip.formats import IntFormat
from photomask.chip.forms.deeploy import DeeployForm
from photomask.chip.forms.form import Form
from photomask.chip.forms.onnx import OnnxForm, integer_model
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.qdq import QdqForm
from photomask.chip.forms.qonnx import QonnxForm
from photomask.chip.operators import AveragePool, Embedding, Reshape, Softmax
from photomask.chip.program import IntegerProgram
from photomask.errors import DataError, DocumentError, EngineError, FormError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FORMS: list[Form[None]] = [OnnxForm(), QdqForm(), QonnxForm(), DeeployForm()]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
INT8 = IntFormat(bits=8, signed=True)


@pytest.fixture(scope="module")
def program() -> IntegerProgram:
    torch.manual_seed(1)
    return program_of(Network())


@pytest.fixture(scope="module")
def samples(program: IntegerProgram) -> list[dict[str, np.ndarray]]:
    return [codes_of(program, seed) for seed in (1, 2)]


@pytest.fixture
def written(
    form: Form[None], program: IntegerProgram, samples: list[dict[str, np.ndarray]], tmp_path: Path
) -> Path:
    """Where the form lies."""
    place = tmp_path / form.place
    form.export(program, place, samples)
    return place


def model_file(place: Path) -> Path:
    return place / "network.onnx" if place.is_dir() else place


def change(place: Path, alter: Callable[[Any], None]) -> None:
    """Changes the model of a form, as its receiver might find it."""
    model = onnx.load(model_file(place))
    alter(model)
    model_file(place).write_bytes(model.SerializeToString())


def add_to(tensor: Any, amount: float) -> None:
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(
        onnx.numpy_helper.from_array((values + amount).astype(values.dtype), tensor.name)
    )


@each_form
def test_each_meets_the_contract_of_forms(form: Form[None]):
    assert isinstance(form, Form)
    assert form.name.isidentifier()
    assert "\n" not in form.title


@each_form
def test_what_was_written_gives_the_integers_of_the_oracle(
    form: Form[None],
    written: Path,
    program: IntegerProgram,
    samples: list[dict[str, np.ndarray]],
):
    assert form.problems(program) == []
    result = form.check(program, written, samples)
    assert result.passed, result.problems
    assert result.integers >= sum(np.prod(program.edges[name].shape) for name in program.outputs)


BIASES = {
    "onnx": "classifier.bias",
    "qdq": "classifier.bias",
    "qonnx": "classifier.accumulator/bias",
    "deeploy": "classifier_accumulator_bias",
}


def shift_scores(form: Form[None], place: Path, program: IntegerProgram, codes: float) -> None:
    """Adds to the bias of the last layer what moves every score by a number of codes."""
    amount = codes * program.edges["classifier"].scale[0]
    if form.name != "qonnx":  # which has real biases
        amount = round(amount / program.edges["classifier.accumulator"].scale[0])
    name = BIASES[form.name]
    change(place, lambda m: [add_to(t, amount) for t in m.graph.initializer if t.name == name])


@each_form
def test_an_altered_bias_is_found(
    form: Form[None],
    written: Path,
    program: IntegerProgram,
    samples: list[dict[str, np.ndarray]],
):
    shift_scores(form, written, program, -20)
    result = form.check(program, written, samples)
    assert not result.passed
    assert result.mismatches > 0
    assert "'classifier" in result.problems[0]


@pytest.mark.parametrize("form", [QdqForm(), QonnxForm()], ids=lambda form: form.name)
def test_codes_that_are_all_off_by_one_are_found_in_forms_of_real_values(
    form: Form[None], written: Path, program: IntegerProgram
):
    few, many = ([codes_of(program, seed) for seed in range(n)] for n in (2, 12))
    shift_scores(form, written, program, 0.9)
    assert form.check(program, written, few).passed  # ten codes say nothing
    result = form.check(program, written, many)
    assert not result.mismatches
    assert not result.passed
    assert "of 60 codes differ" in result.problems[0]


@each_form
@pytest.mark.parametrize("fault", ["missing", "truncated", "no model", "of another program"])
def test_files_that_are_not_of_the_program_are_refused(
    fault: str,
    form: Form[None],
    written: Path,
    program: IntegerProgram,
    samples: list[dict[str, np.ndarray]],
):
    file = model_file(written)
    if fault == "missing":
        file.unlink()
    elif fault == "truncated":
        file.write_bytes(file.read_bytes()[:-200])
    elif fault == "no model":
        file.write_bytes(bytes(99))
    else:
        make, output = small_builder()
        save_onnx(integer_model(make.build(output)), file)
    with pytest.raises(DocumentError, match=re.escape(str(file))):
        form.check(program, written, samples)


@pytest.mark.parametrize("form", FORMS[:3], ids=lambda form: form.name)
def test_a_check_needs_samples_that_fit(form: Form[None], written: Path, program: IntegerProgram):
    for wrong in ([], [{}], [{"x": np.zeros((1, 3), dtype=np.int64)}]):
        with pytest.raises(DataError):
            form.check(program, written, wrong)


@pytest.mark.parametrize("form", FORMS[:3], ids=lambda form: form.name)
def test_a_model_that_the_runtime_refuses_is_an_engine_error(
    form: Form[None],
    written: Path,
    program: IntegerProgram,
    samples: list[dict[str, np.ndarray]],
):
    def alter(model: Any) -> None:
        for node in model.graph.node:
            if node.op_type in ("Conv", "ConvInteger"):
                del node.input[1:]

    change(written, alter)
    with pytest.raises(EngineError, match="ONNX Runtime"):
        form.check(program, written, samples)


@pytest.mark.parametrize("form", [QdqForm(), QonnxForm()], ids=lambda form: form.name)
def test_an_activation_that_no_node_makes_is_named(
    form: Form[None],
    written: Path,
    program: IntegerProgram,
    samples: list[dict[str, np.ndarray]],
):
    def alter(model: Any) -> None:
        for node in model.graph.node:
            node.output[:] = ["elsewhere" if n == "second" else n for n in node.output]

    change(written, alter)
    with pytest.raises(DocumentError, match="'second'"):
        form.check(program, written, samples)


def wide_pool() -> AveragePool:
    return AveragePool(
        kernel=(3, 3), stride=(2, 2), padding=(0, 0), output_size=(2, 2), zero_point=0,
        adaptive=True,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda form: form.name)
def test_all_steps_without_a_form_are_named_at_once(form: Form[None], tmp_path: Path):
    make = ProgramBuilder()
    x = make.input("x", (1, 2, 5, 5))
    first = make.requantize("first:mean", make.step("first", wide_pool(), [x]), INT8)
    second = make.requantize("second:mean", make.step("second", wide_pool(), [x]), INT8)
    program = make.build(first, second)
    problems = form.problems(program)
    assert {"first", "second"} <= {problem.step for problem in problems}
    with pytest.raises(FormError) as caught:
        form.export(program, tmp_path / "export", [make.codes(1)])
    assert all(str(problem) in str(caught.value) for problem in problems)
    assert not list(tmp_path.iterdir())


def test_operators_that_a_form_does_not_write_are_refused_with_a_reason():
    for form in (QonnxForm(), DeeployForm()):
        for operator in (Softmax, Embedding):
            assert form.refusal(operator)


@pytest.mark.parametrize("zero_point", [0, 3])
def test_qonnx_refuses_zero_points_that_the_edge_does_not_tell(zero_point: int):
    make = ProgramBuilder()
    y = make.convolution("conv", make.input("x", (1, 2, 6, 6)), 4)
    make.edges["y"] = make.edges[make.requantize("y", y, INT8, shift=17)].model_copy(
        update={"zero_point": zero_point}
    )
    reasons = [problem.reason for problem in QonnxForm().problems(make.build("y"))]
    assert reasons == ["its zero point is 0, but its output edge has 3"] * (zero_point == 3)


def test_deeploy_refuses_sums_that_a_rescaling_does_not_complete():
    """The bias of a convolution goes into the rescaling; another reader would miss it."""
    make = ProgramBuilder()
    sums = make.convolution("conv", make.input("x", (1, 2, 6, 6)), 4)
    wide = make.edges[sums].format
    moved = make.step("moved", Reshape(shape=(144,)), [sums], format=wide)
    flat = make.requantize("flat", moved, INT8, shift=17)
    y = make.requantize("y", sums, INT8, shift=17)
    problems = {p.step: p.reason for p in DeeployForm().problems(make.build(flat, y))}
    assert "rescalings" in problems["conv"]


def test_deeploy_is_checked_in_32_bits(
    program: IntegerProgram, samples: list[dict[str, np.ndarray]], tmp_path: Path
):
    form = DeeployForm()
    form.export(program, tmp_path / "out", samples)

    def alter(model: Any) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "classifier_mul":
                add_to(tensor, 1 << 30)

    change(tmp_path / "out", alter)
    result = form.check(program, tmp_path / "out", [])
    assert any("exceeds 32 bits" in problem for problem in result.problems)


@pytest.mark.parametrize("name", ["inputs.npz", "outputs.npz"])
def test_deeploys_samples_are_checked_too(
    name: str, program: IntegerProgram, samples: list[dict[str, np.ndarray]], tmp_path: Path
):
    form, folder = DeeployForm(), tmp_path / "out"
    form.export(program, folder, samples)
    with np.load(folder / name) as arrays:
        changed = {
            key: np.where(values > 0, values - 1, values + 1) for key, values in arrays.items()
        }
    np.savez(folder / name, **changed)  # type: ignore[arg-type]
    assert not form.check(program, folder, []).passed
    np.savez(folder / name, other=np.zeros(3, dtype=np.int64))
    with pytest.raises(DocumentError, match="out"):
        form.check(program, folder, [])


def test_deeploy_needs_a_sample(program: IntegerProgram, tmp_path: Path):
    with pytest.raises(DataError, match="one sample"):
        DeeployForm().export(program, tmp_path / "out", [])

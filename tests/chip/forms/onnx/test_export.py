"""The integer model is valid, reads like its program and holds no float."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.random_program import random_program
from tests.chip.programs import small_builder

from photomask.chip.forms import onnx_builder as graph_builder
from photomask.chip.forms.onnx import integer_model
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.program import IntegerProgram
from photomask.errors import ExportError, MissingDependencyError

onnx = pytest.importorskip("onnx")
inliner = pytest.importorskip("onnx.inliner")

SEEDS = range(25)
INTEGERS = {"INT8", "UINT8", "INT32", "INT64", "UINT64", "BOOL"}


def small() -> IntegerProgram:
    make, output = small_builder()
    return make.build(output)


def programs() -> Iterator[IntegerProgram]:
    yield small()
    yield from (random_program(seed) for seed in SEEDS)


def type_names(model: Any) -> dict[str, str]:
    """Returns the type of every value of a model without functions, constants included."""
    name_of = onnx.TensorProto.DataType.Name
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: name_of(value.type.tensor_type.elem_type) for value in values}
    types |= {tensor.name: name_of(tensor.data_type) for tensor in graph.initializer}
    missing = {name for node in graph.node for name in node.output} - set(types)
    assert not missing
    return types


def test_models_pass_the_checker_and_shape_inference():
    for program in programs():
        model = integer_model(program)
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        described = {value.name: value.type for value in model.graph.value_info}
        for value in inferred.graph.value_info:
            assert described.get(value.name, value.type) == value.type


def test_no_value_is_a_float_inside_functions_either():
    for program in programs():
        model = integer_model(program)
        inlined = inliner.inline_local_functions(model)
        assert not inlined.functions
        assert set(type_names(model).values()) <= INTEGERS - {"UINT64", "BOOL"}
        assert set(type_names(inlined).values()) <= INTEGERS


def test_versions_are_those_that_the_oldest_supported_runtime_reads():
    model = integer_model(small())
    assert model.ir_version == 10
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 21, "photomask": 1}


def test_nodes_are_called_as_their_steps():
    for program in programs():
        model, steps = integer_model(program), {step.name for step in program.steps}
        names = [node.name for node in model.graph.node]
        assert len(names) == len(set(names))
        assert steps <= set(names)
        for node in model.graph.node:
            owner = [s for s in steps if node.name == s or node.name.startswith(f"{s}/")]
            assert owner
            assert node.doc_string


def test_values_are_called_as_edges_and_tensors():
    for program in programs():
        model = integer_model(program)
        computed = [name for node in model.graph.node for name in node.output]
        known = set(program.edges) | {value.name for value in model.graph.input}
        assert set(program.edges) <= {*computed, *program.inputs}
        parents = (*known, *program.tensors, *(step.name for step in program.steps))
        for name in (*computed, *(tensor.name for tensor in model.graph.initializer)):
            assert any(name == p or name.startswith((f"{p}/", f"{p}.", f"{p}_")) for p in parents)


def test_each_requantization_is_one_node():
    program = small()
    model = integer_model(program)
    found = [node.name for node in model.graph.node if node.op_type.startswith("Requantize")]
    assert found == [s.name for s in program.steps if s.operator.kind == "requantize"]


def test_what_fits_8_bits_is_one_convinteger_or_matmulinteger():
    kinds = [node.op_type for node in integer_model(small()).graph.node]
    assert kinds.count("ConvInteger") == 2
    assert kinds.count("MatMulInteger") == 1
    assert not {"Limb", "AddLimb"} & set(kinds)


def test_factors_are_unsigned_since_int8_by_uint8_saturates_on_some_processors():
    for program in programs():
        model = integer_model(program)
        types = type_names(model)
        for node in model.graph.node:
            if node.op_type in ("ConvInteger", "MatMulInteger"):
                assert {types[name] for name in node.input} == {"UINT8"}


def test_the_batch_is_a_dimension_by_name():
    model = integer_model(small())
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_metadata_says_what_program_it_is_and_what_codes_mean():
    program = small()
    found = {entry.key: entry.value for entry in integer_model(program).metadata_props}
    assert found["photomask.content_sha256"] == program.content_hash()
    assert json.loads(found["photomask.target"])["name"] == "asic"
    edges = json.loads(found["photomask.edges"])
    assert set(edges) == set(program.edges)
    assert edges["x"] == {
        "format": "int8",
        "interval": [-128, 127],
        "scale": [0.5],
        "zero_point": 0,
        "channel_axis": None,
    }


def test_the_same_program_gives_the_same_bytes(tmp_path: Path):
    for name in "ab":
        save_onnx(integer_model(small()), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_model_is_the_one_that_was_made(tmp_path: Path):
    model = integer_model(small())
    save_onnx(model, tmp_path / "new" / "model.onnx")
    assert onnx.load(tmp_path / "new" / "model.onnx") == model


def test_a_model_that_protobuf_cannot_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graph_builder, "LARGEST_MODEL", 1000)
    with pytest.raises(ExportError, match="at most 1000"):
        save_onnx(integer_model(small()), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write"):
        save_onnx(integer_model(small()), tmp_path / "file" / "model.onnx")


def test_without_onnx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx.helper", None)
    with pytest.raises(MissingDependencyError, match=r"photomask\[onnx\]"):
        integer_model(small())


def test_equal_tensors_of_one_name_are_stored_once():
    builder = graph_builder.GraphBuilder(small())
    kind = onnx.TensorProto.INT32
    names = [builder.tensor("t", np.array(values), kind) for values in ([1], [1], [2])]
    assert names == ["t", "t", "t_2"]

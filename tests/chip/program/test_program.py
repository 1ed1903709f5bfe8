"""A program comes back as it was saved, or is refused."""

import errno
import json
import random
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.numpy
import torch
from tests.chip.programs import ProgramBuilder, small_builder, small_program

from photomask.chip.formats import Interval, IntFormat, storage_dtype
from photomask.chip.operators import Add, Clamp, Constant, Matmul, Permute
from photomask.chip.program import Edge, IntegerProgram
from photomask.chip.program.program import PROGRAM_FILE, TENSOR_FILE
from photomask.documents import RECORD_FILE
from photomask.errors import DataError, DocumentError, ExportError

INT8 = IntFormat(bits=8, signed=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_program()[0].save(tmp_path / "program")
    return tmp_path / "program"


def document(folder: Path) -> dict:
    return json.loads((folder / PROGRAM_FILE).read_text())


def rewrite(folder: Path, changed: dict) -> None:
    (folder / PROGRAM_FILE).write_text(json.dumps(changed))


def refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(DocumentError, match=match):
        IntegerProgram.load(folder)


def places(value, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


class TestSavedPrograms:
    def test_come_back_equal(self, saved: Path):
        program, loaded = small_program()[0], IntegerProgram.load(saved)
        assert loaded.content_hash() == program.content_hash()
        assert (loaded.edges, loaded.steps) == (program.edges, program.steps)
        assert (loaded.target, loaded.formats) == (program.target, program.formats)
        assert (loaded.inputs, loaded.outputs) == (program.inputs, program.outputs)
        assert loaded.provenance == program.provenance
        for name, tensor in program.tensors.items():
            assert loaded.tensors[name].dtype == np.int64
            assert np.array_equal(loaded.tensors[name], tensor)

    def test_have_the_same_bytes_every_time(self, saved: Path, tmp_path: Path):
        IntegerProgram.load(saved).save(tmp_path / "again")
        for name in (PROGRAM_FILE, TENSOR_FILE):
            assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()

    def test_hold_integers_in_two_files_and_no_pickle(self, saved: Path):
        assert sorted(path.name for path in saved.iterdir()) == [
            RECORD_FILE,
            PROGRAM_FILE,
            TENSOR_FILE,
        ]
        tensors = safetensors.numpy.load_file(saved / TENSOR_FILE)
        assert {tensor.dtype.kind for tensor in tensors.values()} <= {"i", "u"}
        assert tensors["layer1.conv.weight"].dtype == np.int8

    def test_replace_programs_and_nothing_else(self, saved: Path, tmp_path: Path):
        small_program()[0].save(saved)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis").write_text("")
        with pytest.raises(ExportError, match="not an earlier output"):
            small_program()[0].save(tmp_path / "other")

    def test_a_full_disk_is_an_export_error(self, monkeypatch, tmp_path: Path):
        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(ExportError, match="No space"):
            small_program()[0].save(tmp_path / "program")
        assert not list(tmp_path.iterdir())


class TestAlteredFiles:
    @pytest.mark.parametrize("name", [PROGRAM_FILE, TENSOR_FILE])
    def test_missing(self, saved: Path, name: str):
        (saved / name).unlink()
        refused(saved, "cannot read")

    @pytest.mark.parametrize("name", [PROGRAM_FILE, TENSOR_FILE])
    def test_truncated(self, saved: Path, name: str):
        content = (saved / name).read_bytes()
        for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 2):
            (saved / name).write_bytes(content[:length])
            refused(saved)

    @pytest.mark.parametrize("name", [PROGRAM_FILE, TENSOR_FILE])
    def test_any_byte_changes_the_program_or_is_refused(self, saved: Path, name: str):
        """A byte may mean nothing (a space, provenance); then the program is the same."""
        content, choose = (saved / name).read_bytes(), random.Random(0)
        expected = small_program()[0].content_hash()
        for _ in range(250):
            at = choose.randrange(len(content))
            changed = bytes([content[at] ^ (1 << choose.randrange(8))])
            (saved / name).write_bytes(content[:at] + changed + content[at + 1 :])
            try:
                program = IntegerProgram.load(saved)
            except DocumentError:
                continue
            assert program.content_hash() == expected

    def test_any_byte_of_a_tensor_is_refused(self, saved: Path):
        content, choose = (saved / TENSOR_FILE).read_bytes(), random.Random(1)
        start = 8 + int.from_bytes(content[:8], "little")
        for at in choose.sample(range(start, len(content)), 60):
            changed = bytes([content[at] ^ 1])
            (saved / TENSOR_FILE).write_bytes(content[:at] + changed + content[at + 1 :])
            refused(saved)

    @pytest.mark.parametrize("new", [None, "x", -1, 1 << 80, 0.5, [], {}, [[1 << 80]], True])
    def test_any_field_of_another_type_or_value(self, saved: Path, new):
        original, expected = document(saved), small_program()[0].content_hash()
        paths = list(places(original))
        for path in random.Random(2).sample(paths, 150):
            changed = replaced(original, path, new)
            if changed == original or path[:1] == ("provenance",):
                continue
            rewrite(saved, changed)
            try:
                program = IntegerProgram.load(saved)
            except DocumentError:
                continue
            # Such as `true` for 1 where both mean the same.
            assert program.content_hash() == expected

    def test_an_unknown_field_at_any_level(self, saved: Path):
        original = document(saved)
        for path in places(original):
            at = original
            for key in path:
                at = at[key]
            if isinstance(at, dict) and path[:1] != ("provenance",):
                rewrite(saved, replaced(original, path, {**at, "unknown": 1}))
                refused(saved)

    def test_a_stale_hash(self, saved: Path):
        changed = document(saved)
        changed["steps"][0]["node"] = "another"
        rewrite(saved, changed)
        refused(saved, "content hash")

    def test_another_schema(self, saved: Path):
        rewrite(saved, document(saved) | {"schema_version": 2})
        refused(saved, "schema_version")

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_, np.float16])
    def test_a_tensor_that_is_not_integer(self, saved: Path, dtype):
        tensors = safetensors.numpy.load_file(saved / TENSOR_FILE)
        name = sorted(tensors)[0]
        tensors[name] = tensors[name].astype(dtype)
        safetensors.numpy.save_file(tensors, saved / TENSOR_FILE)
        refused(saved, "must be integers")

    def test_a_bfloat16_tensor(self, saved: Path):
        from safetensors.torch import load_file, save_file

        tensors = load_file(saved / TENSOR_FILE)
        name = sorted(tensors)[0]
        tensors[name] = tensors[name].to(torch.bfloat16)
        save_file(tensors, saved / TENSOR_FILE)
        refused(saved)

    def test_swapped_missing_and_added_tensors(self, saved: Path):
        tensors = safetensors.numpy.load_file(saved / TENSOR_FILE)
        first, second = "layer1.conv.bias", "layer2.conv.bias"
        swapped = tensors | {first: tensors[second], second: tensors[first]}
        fewer = {name: tensor for name, tensor in tensors.items() if name != first}
        more = tensors | {"another": tensors[first]}
        for changed, match in ((swapped, "conv"), (fewer, first), (more, "another")):
            safetensors.numpy.save_file(changed, saved / TENSOR_FILE)
            refused(saved, match)

    def test_steps_out_of_order_doubled_or_dropped(self, saved: Path):
        original = document(saved)
        steps = original["steps"]
        for changed in (steps[::-1], [*steps, steps[-1]], steps[:-1], steps[1:], []):
            rewrite(saved, original | {"steps": changed})
            refused(saved, "step")

    def test_two_edges_of_one_name(self, saved: Path):
        original = document(saved)
        rewrite(saved, original | {"edges": [*original["edges"], original["edges"][0]]})
        refused(saved, "the same name")

    def test_two_steps_of_one_name(self, saved: Path):
        original = document(saved)
        name = original["steps"][0]["name"]
        rewrite(saved, replaced(original, ("steps", 1, "name"), name))
        refused(saved, "two steps of the program have the same name")

    @pytest.mark.parametrize("field", ["low", "high"])
    def test_another_interval(self, saved: Path, field: str):
        original = document(saved)
        for index, edge in enumerate(original["edges"][1:], 1):
            rewrite(saved, replaced(original, ("edges", index, field), edge[field] + 1))
            refused(saved)

    @pytest.mark.parametrize("size", [0, -1, 2, 1 << 20, 1 << 40, 1 << 62, 10**30])
    def test_shapes_that_are_huge_or_impossible(self, saved: Path, size: int):
        original = document(saved)
        for path in places(original):
            if "shape" in path and isinstance(path[-1], int) and path[0] != "tensors":
                if replaced(original, path, size) == original:
                    continue
                rewrite(saved, replaced(original, path, size))
                refused(saved)

    @pytest.mark.parametrize("size", [0, -1, 1 << 20, 1 << 62, 10**30])
    def test_attributes_that_are_huge_or_impossible(self, saved: Path, size: int):
        original = document(saved)
        for path in places(original):
            if "operator" in path and isinstance(path[-1], int):
                if replaced(original, path, size) == original:
                    continue
                rewrite(saved, replaced(original, path, size))
                refused(saved)


class TestImpossiblePrograms:
    def test_wrong_number_of_inputs(self):
        make, _ = small_builder()
        make.step("clamp", Clamp(low=0, high=1), ["x", "logits"], format=INT8)
        with pytest.raises(DocumentError, match="takes 1 inputs, got 2"):
            make.build("clamp")

    def test_an_integer_that_would_wrap(self):
        make, output = small_builder()
        weight = make.tensors["layer1.conv.weight"].astype(np.uint64)
        weight.flat[0] = 2**64 - 1  # is -1 where it wraps, which the format holds
        make.tensors["layer1.conv.weight"] = weight
        with pytest.raises(DocumentError, match="18446744073709551615, beyond int64"):
            make.build(output)

    def test_a_float_tensor(self):
        make, output = small_builder()
        make.tensors["layer1.conv.weight"] = make.tensors["layer1.conv.weight"].astype(float)
        with pytest.raises(DocumentError, match="must be integers"):
            make.build(output)

    def test_a_tensor_outside_its_format(self):
        make, output = small_builder()
        make.formats["layer1.conv.weight"] = IntFormat(bits=2, signed=True)
        with pytest.raises(DocumentError, match="outside int2"):
            make.build(output)

    def test_no_output(self):
        make, _ = small_builder()
        with pytest.raises(DocumentError, match="one output"):
            make.build()

    def test_broadcasting_that_mixes_samples(self):
        make = ProgramBuilder()
        a, b = make.input("a", (1, 1)), make.input("b", (1, 1, 3))
        total = make.step("total", Add(coefficients=(1, 1), bias=0), [a, b])
        with pytest.raises(DocumentError, match="mixes the samples"):
            make.build(total)

    def test_a_permutation_of_the_batch(self):
        make = ProgramBuilder()
        x = make.input("x", (1, 1, 3))
        with pytest.raises(ValueError, match="batch"):
            make.step("y", Permute(order=(1, 0, 2)), [x])

    def test_a_constant_serves_every_sample(self):
        make = ProgramBuilder()
        x = make.input("x", (1, 3, 4))
        formats = {"value": INT8}
        c = make.step("c", Constant(), [], {"value": np.ones((1, 4, 2), dtype=np.int64)}, formats)
        y = make.step("y", Matmul(zero_points=(0, 0), terms=4), [x, c])
        assert make.build(y).edges[y].shape == (1, 3, 2)


class TestEdge:
    fields: ClassVar = {
        "name": "x",
        "shape": (1, 3, 4),
        "format": INT8,
        "low": -128,
        "high": 127,
        "scale": (0.5,),
        "zero_point": 2,
        "role": "activation",
    }

    @pytest.mark.parametrize(
        "change",
        [
            {"shape": ()},
            {"shape": (1, 0)},
            {"low": -129},
            {"low": 5, "high": 4},
            {"scale": ()},
            {"scale": (0.0,)},
            {"scale": (-1.0,)},
            {"scale": (float("nan"),)},
            {"scale": (1.0, 2.0)},
            {"scale": (1.0, 2.0), "channel_axis": 1},
            {"channel_axis": 0},
            {"channel_axis": 3},
        ],
    )
    def test_contradictions_are_refused(self, change):
        with pytest.raises(ValueError, match="for Edge"):
            Edge(**(self.fields | change))

    def test_codes_become_real_values(self):
        codes = torch.arange(24).reshape(2, 3, 4)
        whole = Edge(**self.fields)
        assert torch.equal(whole.dequantize(codes), (codes.double() - 2) / 2)
        channels = Edge(**(self.fields | {"scale": (1.0, 2.0, 4.0), "channel_axis": 1}))
        expected = (codes.double() - 2) * torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1)
        assert torch.equal(channels.dequantize(codes), expected)


class TestQuantizeInput:
    def test_rounds_half_to_even_and_saturates(self):
        program, _ = small_program()
        x = torch.zeros(1, 2, 6, 6)
        x[0, 0, 0] = torch.tensor([0.25, 0.75, -0.25, 1e30, -1e30, 63.5])
        codes = program.quantize_input(x)
        assert codes.dtype == torch.int64
        assert codes[0, 0, 0].tolist() == [0, 2, 0, 127, -128, 127]

    @pytest.mark.parametrize(
        "x",
        [
            torch.zeros(1, 2, 6, 7),
            torch.zeros(2, 6, 6),
            torch.zeros(1, 2, 6, 6, dtype=torch.int64),
            torch.full((1, 2, 6, 6), float("nan")),
            torch.full((1, 2, 6, 6), float("inf")),
        ],
    )
    def test_wrong_data_is_refused(self, x):
        with pytest.raises(DataError, match="input 'x'"):
            small_program()[0].quantize_input(x)


def test_a_program_prints_as_a_table():
    text = str(small_program()[0])
    assert "integer program for target 'asic', 10 steps" in text
    assert "convolution" in text


def test_costs():
    program, _ = small_program()
    counts = program.multiply_accumulates()
    assert counts == {"layer1.conv": 36 * 4 * 18, "layer2.conv": 36 * 4 * 36, "classifier": 180}
    bits = sum(t.size * program.formats[name].bits for name, t in program.tensors.items())
    assert program.weight_bytes() == bits / 8


@pytest.mark.parametrize("bits", [1, 8, 9, 16, 17, 32, 33, 63])
@pytest.mark.parametrize("signed", [True, False])
def test_storage_holds_the_format(bits: int, signed: bool):
    format = IntFormat(bits=bits, signed=signed)
    info = np.iinfo(storage_dtype(format))
    assert format.interval.within(Interval(int(info.min), int(info.max)))

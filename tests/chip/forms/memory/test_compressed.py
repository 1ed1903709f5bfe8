"""Exports with compressed weights: what their files mean, and that damage is found."""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from tests.chip.forms.memory.test_export import contents
from tests.chip.forms.memory.test_export_check import forge, seal
from tests.chip.programs import ProgramBuilder

from photomask.chip import check_export, export
from photomask.chip.formats import IntFormat
from photomask.chip.forms import MemoryForm
from photomask.chip.operators import Linear
from photomask.chip.program import IntegerProgram
from photomask.chip.target import PRESETS, Target
from photomask.errors import DocumentError, UsageError

ALL = ("n:m", "bitmap", "run-length", "blocks")
INT32 = IntFormat(bits=32, signed=True)


def sparse_program(target: Target = PRESETS["asic"]) -> tuple[IntegerProgram, np.ndarray]:
    """Linear steps whose weights suit each storage, one with zero points, and a dense one."""
    make, random = ProgramBuilder(target), np.random.default_rng(0)

    def numbers(shape: tuple[int, ...], low: int = 1) -> np.ndarray:
        return random.integers(low, 8, shape)

    ranks = random.random((16, 8, 4)).argsort(axis=2).argsort(axis=2)
    scattered = random.random((16, 32))
    blocks = np.zeros((16, 32), dtype=np.int64)
    blocks[8:, 16:24] = numbers((8, 8))
    zero_point = random.integers(-3, 4, 16)
    weights = {
        "pairs": np.where(ranks < 2, numbers((16, 8, 4)), 0).reshape(16, 32),
        "bits": np.where(scattered < 0.4, numbers((16, 32)), 0),
        "runs": np.where(scattered < 0.03, numbers((16, 32)), 0),
        "tiles": blocks,
        "shifted": np.where(scattered < 0.4, numbers((16, 32), -8), zero_point[:, None]),
        "dense": numbers((16, 32)),
    }
    x, outputs = make.input("x", (1, 32)), []
    for name, weight in weights.items():
        tensors = {"weight": weight, "bias": random.integers(-99, 99, 16)}
        formats = {"weight": IntFormat(bits=4, signed=True), "bias": INT32}
        if name == "shifted":
            tensors["weight_zero_point"] = zero_point
            formats["weight_zero_point"] = IntFormat(bits=4, signed=True)
        outputs.append(make.step(name, Linear(), [x], tensors, formats, format=INT32))
    return make.build(*outputs), make.codes(2)["x"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program, codes = sparse_program()
    folder = tmp_path_factory.mktemp("sparse") / "out"
    form = MemoryForm(encodings=("hex", "bin", "dec", "npy"), compression=ALL)
    export(program, folder, codes, form=form)
    return folder


@pytest.fixture
def exported(pristine: Path, tmp_path: Path) -> Path:
    for name, content in contents(pristine).items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    return tmp_path / "out"


def plain_stream(folder: Path, record: dict, words: dict) -> list[int]:
    """Reads the elements of a stream from its hexadecimal words, bit by bit."""
    lines = (folder / record["path"]).read_text().splitlines()[1:]
    assert len(lines) == record["words"]
    bits: list[int] = []
    upwards = words["first_lane"] == "least_significant"
    for line in lines:
        word = [int(line, 16) >> bit & 1 for bit in range(words["word_bits"])]
        bits += word if upwards else word[::-1]
    width, found = record["format"]["bits"], []
    for element in range(record["elements"]):
        part = bits[element * width : (element + 1) * width]
        value = sum(bit << n for n, bit in enumerate(part if upwards else part[::-1]))
        negative = record["format"]["signed"] and value >> (width - 1)
        found.append(value - (1 << width) if negative else value)
    assert not any(bits[record["elements"] * width :])
    return found


def plain_weight(record: dict, streams: dict[str, list[int]], zero: list[int]) -> np.ndarray:
    """Restores a matrix from its streams as the documentation says, one element at a time."""
    outputs, inputs = record["shape"]
    weight = np.array([[zero[o]] * inputs for o in range(outputs)])
    storage, values = record["storage"], iter(streams["values"])
    places = list(itertools.product(range(outputs), range(inputs)))
    if storage["kind"] == "n:m":
        kept, group = storage["pattern"]["kept"], storage["pattern"]["group"]
        # Sets of positions by their highest member first, which is the order of their numbers.
        sets = sorted(itertools.combinations(range(group), kept), key=lambda found: found[::-1])
        for number, index in enumerate(streams["indices"]):
            row, first = divmod(number * group, -(-inputs // group) * group)
            for position in sets[index]:
                weight[row, first + position] = next(values)
    elif storage["kind"] == "bitmap":
        for place, bit in zip(places, streams["bitmap"], strict=True):
            weight[place] = next(values) if bit else weight[place]
    elif storage["kind"] == "run-length":
        at = -1
        for run in streams["runs"]:
            at += run + 1
            weight[places[at]] = next(values)
    else:
        rows, columns = storage["blocks"]["outputs"], storage["blocks"]["inputs"]
        for position in streams["positions"]:
            row, column = divmod(position, -(-inputs // columns))
            for o, i in itertools.product(range(rows), range(columns)):
                weight[row * rows + o, column * columns + i] = next(values)
    assert next(values, None) is None
    return weight


@pytest.mark.parametrize("fields", [{}, {"memory_word_bits": 24, "first_lane": "most_significant"}])
def test_every_stream_means_what_the_manifest_says(fields: dict, tmp_path: Path):
    """Read from the JSON and the text alone, with no code of the package."""
    program, codes = sparse_program(PRESETS["asic"].model_copy(update=fields))
    export(program, tmp_path / "out", codes, form=MemoryForm(compression=ALL))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    found = {}
    for record in manifest["compressed"]:
        streams = {
            stream["stream"]: plain_stream(tmp_path / "out", stream, manifest["words"])
            for stream in record["streams"]
        }
        zero = program.tensors.get(record["zero_point"], np.zeros(16, dtype=np.int64)).tolist()
        weight = plain_weight(record, streams, zero)
        assert np.array_equal(weight, program.tensors[record["tensor"]]), record["step"]
        words = sum(stream["words"] for stream in record["streams"])
        assert record["stored_bits"] == words * manifest["words"]["word_bits"]
        assert record["stored_bits"] < record["dense_bits"]
        found[record["step"]] = record["storage"]["kind"]
    assert found == {
        "pairs": "n:m", "bits": "bitmap", "runs": "run-length", "tiles": "blocks",
        "shifted": "bitmap",
    }  # fmt: skip
    dense = {(record["step"], record["role"]) for record in manifest["memory"]}
    assert ("dense", "weight") in dense
    assert not dense & {(step, "weight") for step in found}
    assert check_export(tmp_path / "out").passed


def test_an_untouched_export_passes_in_every_encoding(pristine: Path):
    report = check_export(pristine)
    assert report.passed, str(report)
    assert all(edge.verdict == "match" for edge in report.edges)
    form = MemoryForm()
    assert form.check(sparse_program()[0], pristine, ()).passed


def test_the_readme_says_how_to_read_the_storages_of_this_export(pristine: Path):
    text = (pristine / "README.md").read_text()
    assert "5 weight(s) have streams" in text
    assert all(f"- `{kind}`: " in text for kind in ALL)


def test_without_compression_every_weight_is_dense(tmp_path: Path):
    program, codes = sparse_program()
    manifest = export(program, tmp_path / "out", codes)
    assert manifest.compressed == ()
    assert not list((tmp_path / "out").rglob("*.values.hex"))


def test_steps_that_share_a_weight_share_its_streams(tmp_path: Path):
    make = ProgramBuilder()
    x = make.input("x", (1, 32))
    weight = np.zeros((8, 32), dtype=np.int64)
    weight[:, ::4] = 3
    formats = {"weight": IntFormat(bits=4, signed=True), "bias": INT32}
    edges = [
        make.step(name, Linear(), [x], {"weight": weight, "bias": bias}, formats, format=INT32)
        for name, bias in (("one", np.zeros(8, np.int64)), ("two", np.ones(8, np.int64)))
    ]
    program = make.build(*edges)
    shared = program.steps[0].tensors["weight"]
    steps = (
        program.steps[0],
        program.steps[1].model_copy(
            update={"tensors": program.steps[1].tensors | {"weight": shared}}
        ),
    )
    unused = program.steps[1].tensors["weight"]
    program = IntegerProgram(
        target=program.target, inputs=program.inputs, outputs=program.outputs,
        edges=tuple(program.edges.values()), steps=steps,
        tensors={n: t for n, t in program.tensors.items() if n != unused},
        formats={n: f for n, f in program.formats.items() if n != unused},
        provenance={},
    )  # fmt: skip
    form = MemoryForm(compression=ALL)
    manifest = export(program, tmp_path / "out", make.codes(1), form=form)
    first, second = manifest.compressed
    assert first.streams == second.streams
    assert check_export(tmp_path / "out").passed


STREAMS = [
    f"memory/{step}/weight.{stream}"
    for step, stream in [
        ("pairs", "values"), ("pairs", "indices"), ("bits", "bitmap"), ("bits", "values"),
        ("runs", "runs"), ("runs", "values"), ("tiles", "positions"), ("tiles", "values"),
    ]
]  # fmt: skip


@pytest.mark.parametrize("stem", STREAMS)
def test_a_stream_that_is_altered_truncated_or_missing_is_found_and_named(
    stem: str, exported: Path
):
    path = exported / f"{stem}.hex"
    content = path.read_bytes()
    altered = bytearray(content)
    altered[-2] ^= 1
    for damage in (bytes(altered), content[: len(content) // 2]):
        path.write_bytes(damage)
        problems = check_export(exported).problems
        assert any(f"{stem}.hex" in problem for problem in problems), problems
    path.unlink()
    assert any(f"{stem}.hex: the file is missing" in p for p in check_export(exported).problems)


@pytest.mark.parametrize("stem", STREAMS)
def test_a_forged_stream_is_found_by_the_program(stem: str, exported: Path):
    """The manifest says that the file is right, so that only its meaning shows the forgery."""
    name = f"{stem}.dec"
    values = (exported / name).read_text().split("\n")
    values[-2] = str(int(values[-2]) ^ 1)
    forge_stream(exported, name, "\n".join(values).encode())
    report = check_export(exported)
    assert not report.passed
    assert any(name in problem and "weight of step" in problem for problem in report.problems)


def test_a_file_of_another_length_or_with_unknown_digits_is_found(exported: Path):
    stem = "memory/pairs/weight.values"
    forge_stream(exported, f"{stem}.dec", b"1\n2\n")
    assert any("holds 2 entries, expected 256" in p for p in check_export(exported).problems)
    text = (exported / f"{stem}.hex").read_text()
    forge_stream(exported, f"{stem}.hex", (text[:-2] + "x\n").encode())
    assert any("unknown digits" in problem for problem in check_export(exported).problems)
    forge_stream(exported, f"{stem}.bin", b"")
    assert any("a stream of 256 elements" in problem for problem in check_export(exported).problems)


def forge_stream(folder: Path, name: str, content: bytes) -> None:
    """Replaces the file of a stream and makes the manifest say that it is right."""
    forge(folder, name, content)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    for weight in manifest["compressed"]:
        for stream in weight["streams"]:
            if stream["path"] == name:
                stream.update(sha256=digest, bytes=len(content))
    seal(folder, manifest)


@pytest.mark.parametrize(
    "alter",
    [
        lambda body: body["compressed"].pop(),
        lambda body: body["compressed"][0]["storage"]["pattern"].update(kept=3),
        lambda body: body["compressed"][0].update(shape=[1 << 20, 1 << 20]),
        lambda body: body["compressed"][0].update(shape=[512]),
        lambda body: body["compressed"][0].update(stored_bits=1),
        lambda body: body["compressed"][4].update(zero_point=None),
        lambda body: body["compressed"][0]["streams"].reverse(),
        lambda body: body["compressed"][2]["storage"].update(run_bits=16),
        lambda body: body.update(compression=["bitmap"]),
        lambda body: body.update(compression=["zip"]),
    ],
)
def test_a_manifest_that_describes_other_streams_is_found(alter, exported: Path):
    body = json.loads((exported / "manifest.json").read_text())
    alter(body)
    try:
        seal(exported, body)
    except DocumentError:  # the document itself is impossible
        (exported / "manifest.json").write_text(json.dumps(body))
    report = check_export(exported)
    assert not report.passed
    assert any("manifest.json" in problem for problem in report.problems), str(report)


def test_an_unknown_compression_is_a_usage_error():
    with pytest.raises(UsageError, match="choose from n:m, bitmap, run-length, blocks"):
        MemoryForm(compression=("zip",))
    assert MemoryForm(compression=("blocks", "n:m", "blocks")).compression == ("n:m", "blocks")

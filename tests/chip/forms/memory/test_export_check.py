import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from photomask.chip.forms.memory import Manifest, check_export
from photomask.errors import UsageError

KINDS = [
    "manifest.json",
    "README.md",
    "program.json",
    "program.safetensors",
    *(
        f"{stem}.{encoding}"
        for stem in ("memory/layer1.conv/weight", "memory/classifier/bias", "golden/1/pool")
        for encoding in ("hex", "bin", "dec", "npy")
    ),
    "golden/0/x.hex",
]


def test_an_untouched_export_passes(pristine_export):
    report = check_export(pristine_export)
    assert report.passed
    assert all(edge.verdict == "match" for edge in report.edges)
    assert "PASSED" in str(report)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("place", [0.3, 0.95])
def test_an_altered_byte_is_found_and_its_file_named(name, place, exported):
    path = exported / name
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] = content[at] ^ 1
    path.write_bytes(content)
    report = check_export(exported)
    assert not report.passed
    assert any(name in problem for problem in report.problems), str(report)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [0.5, -1])
def test_a_truncated_file_is_found_and_named(name, size, exported):
    path = exported / name
    content = path.read_bytes()
    path.write_bytes(content[: int(size * len(content)) if size != -1 else -1])
    report = check_export(exported)
    assert not report.passed
    assert any(name in problem for problem in report.problems), str(report)


def test_missing_files_are_found_and_named(exported):
    for name in KINDS[1:]:
        (exported / name).unlink()
    report = check_export(exported)
    assert not report.passed
    for name in KINDS[1:]:
        assert any(name in problem for problem in report.problems), name
    (exported / "manifest.json").unlink()
    assert "manifest.json" in check_export(exported).problems[0]


def test_a_file_too_many_is_found(exported):
    (exported / "golden/0/extra.hex").write_text("00\n")
    (exported / "report.html").write_text("not ours, not in our folders")
    report = check_export(exported)
    assert report.problems == ("golden/0/extra.hex: the file is not listed in manifest.json",)


def test_no_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        check_export(tmp_path / "nothing")


def forge(folder: Path, name: str, content: bytes) -> None:
    """Replaces a file and makes the manifest say that it is right."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in ("documents", "memory", "golden"):
        for record in manifest[part]:
            if record["path"] == name:
                record["sha256"] = hashlib.sha256(content).hexdigest()
                record["bytes"] = len(content)
    seal(folder, manifest)


def seal(folder: Path, body: dict) -> None:
    manifest = Manifest.parse(json.dumps(body), "forged").sealed()
    (folder / "manifest.json").write_text(manifest.render())


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "/etc/passwd", "golden/../../x", "golden//x", "", "a\\b", "./x"]
)
def test_a_path_that_leaves_the_export_is_refused(path, exported):
    manifest = Manifest.load(exported)
    record = manifest.golden[0].model_copy(update={"path": path})
    forged = manifest.model_copy(update={"golden": (record, *manifest.golden[1:])}).sealed()
    (exported / "manifest.json").write_text(forged.render())
    report = check_export(exported)
    assert "is not a path inside the export" in report.problems[0]


def test_a_manifest_of_a_hundred_thousand_samples_is_refused_at_once(exported):
    forged = Manifest.load(exported).model_copy(update={"samples": 100_000}).sealed()
    (exported / "manifest.json").write_text(forged.render())
    report = check_export(exported)
    assert any("expected one for each of 100000 samples" in problem for problem in report.problems)


def test_endless_files_and_pipes_in_the_place_of_images_are_told(exported):
    (exported / "golden" / "0" / "logits.hex").unlink()
    os.mkfifo(exported / "golden" / "0" / "logits.hex")
    (exported / "memory" / "classifier" / "weight.hex").unlink()
    (exported / "memory" / "classifier" / "weight.hex").symlink_to("/dev/zero")
    problems = "\n".join(check_export(exported).problems)
    assert "golden/0/logits.hex: cannot read" in problems
    assert "it is a pipe" in problems
    assert "it is a device" in problems


def test_a_forged_weight_is_found_by_the_program(exported):
    name = "memory/classifier/weight.dec"
    values = (exported / name).read_text().split("\n")
    values[3] = str(int(values[3]) ^ 1)
    forge(exported, name, "\n".join(values).encode())
    report = check_export(exported)
    expected = f"{name}: the image differs from the program's tensor 'classifier.weight'"
    assert report.problems == (expected,)


def test_a_forged_golden_vector_is_found_by_the_oracle(exported):
    name = "golden/1/residual.npy"
    tensor = np.load(exported / name)
    tensor[0, 2, 3, 4] += 1
    np.save(exported / name, tensor)
    forge(exported, name, (exported / name).read_bytes())
    report = check_export(exported)
    assert report.problems == ()
    assert not report.passed
    first = report.first_mismatch
    assert first is not None
    assert (first.sample, first.edge, first.step, first.operator) == (
        1,
        "residual",
        "residual",
        "add",
    )
    assert (first.axes, first.coordinate) == (("n", "c", "h", "w"), (0, 2, 3, 4))
    assert first.found == first.expected + 1


def test_a_forged_first_weight_format_runs_the_oracle_on_the_files(exported):
    """The oracle takes its weights from the images, so the wrong weight shows in the edges too."""
    name = "memory/layer1.conv/bias.hex"
    lines = (exported / name).read_text().split("\n")
    lines[1] = f"{(int(lines[1], 16) ^ 4):08x}"
    forge(exported, name, "\n".join(lines).encode())
    report = check_export(exported)
    assert any("differs from the program's tensor" in problem for problem in report.problems)
    assert not report.passed


@pytest.mark.parametrize(
    "alter",
    [
        lambda body: body["golden"].pop(),
        lambda body: body["memory"].reverse(),
        lambda body: body["memory"][0].update(axes=[1, 0, 2, 3]),
        lambda body: body["target"].update(memory_word_bits=64),
        lambda body: body["edges"][2].update(scale=[0.25]),
        lambda body: body["steps"][0]["operator"].update(padding_value=1),
        lambda body: body["golden"][0].update(sample=1),
        lambda body: body["memory"][0].update(words=7),
        lambda body: body.update(inputs=["logits"]),
        lambda body: body.update(samples=1),
        lambda body: body.update(program_sha256=""),
    ],
)
def test_a_manifest_that_describes_another_program_is_found(alter, exported):
    body = json.loads((exported / "manifest.json").read_text())
    alter(body)
    seal(exported, body)
    report = check_export(exported)
    assert not report.passed
    assert any("manifest.json" in problem for problem in report.problems), str(report)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"axes": [0, 0, 2, 3]}, "are not the axes of the shape"),
        ({"axes": [0, 1, 2]}, "are not the axes of the shape"),
        ({"shape": [2, 2, 3, 3]}, "does not have 72 elements"),
        ({"elements": 1}, "does not have 1 elements"),
    ],
)
def test_an_image_whose_axes_or_elements_do_not_fit_its_shape_is_refused(change, named, exported):
    path = exported / "manifest.json"
    body = json.loads(path.read_text())
    body["memory"][0].update(change)
    path.write_text(json.dumps(body))
    (problem,) = check_export(exported).problems
    assert "manifest.json: field memory.0" in problem
    assert named in problem


def test_a_manifest_with_an_unknown_field_or_version_is_refused(exported):
    path = exported / "manifest.json"
    body = json.loads(path.read_text())
    for change in ({"surprise": 1}, {"schema_version": 4}):
        path.write_text(json.dumps(body | change))
        report = check_export(exported)
        assert len(report.problems) == 1
        assert f"manifest.json: field {next(iter(change))}" in report.problems[0]

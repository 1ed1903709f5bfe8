"""What `photomask report compare` finds between two reports of the chip pipeline."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from photomask.chip import (
    Report,
    calibrate,
    compare_reports,
    convert,
    load_recipe,
    load_target,
    prepare,
    verify,
)
from photomask.cli import app
from photomask.errors import UsageError
from photomask.report import Comparison, Difference, DifferenceGroup


def made(model: nn.Module, images: torch.Tensor, recipe: str) -> Report:
    prepared = prepare(model, load_recipe(recipe), images[:1])
    calibrate(prepared, images)
    program = convert(prepared, load_target("asic"))
    return verify(model, program, images, accelerator="reference")


@pytest.fixture(scope="module")
def reports(small_network: nn.Module, small_images: torch.Tensor) -> tuple[Report, Report]:
    return made(small_network, small_images, "w8a8"), made(small_network, small_images, "w4a8")


@pytest.fixture(scope="module")
def files(
    reports: tuple[Report, Report], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, report in zip(("a.json", "b.json"), reports, strict=True):
        (folder / name).write_text(report.render())
    return folder / "a.json", folder / "b.json"


def group(found: Comparison, title: str) -> DifferenceGroup:
    return next(group for group in found.groups if group.title == title)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_layers_are_sorted_by_how_much_they_change(reports: tuple[Report, Report]):
    found = compare_reports(*reports)
    section = next(each for each in found.page().sections if each.title == "Layers: SQNR")
    changes = [abs(cell.sort or 0.0) for row in section.rows for cell in row[3:] if cell.sort]
    assert len(changes) >= 3
    assert changes == sorted(changes, reverse=True)
    expected = {layer.node: layer.sqnr_db for layer in reports[0].layers}
    assert {e.name: e.first for e in group(found, "Layers: SQNR").entries} == expected


def test_formats_and_sizes_that_differ_are_named(reports: tuple[Report, Report]):
    found = compare_reports(*reports)
    formats = group(found, "Layers: format of the weights").entries
    assert {(e.first, e.second) for e in formats if e.differs} == {("int8", "int4")}
    sizes = {e.name: e for e in group(found, "Sizes and work").entries}
    assert sizes["weights, packed"].is_worse is False
    recipe = {e.name: e for e in group(found, "Provenance").entries}["recipe"]
    assert "8-bit" in str(recipe.first)
    assert "4-bit" in str(recipe.second)


def test_cycles_are_compared_for_one_accelerator_alone(reports: tuple[Report, Report]):
    found = compare_reports(*reports)
    first, second = reports
    assert first.hardware is not None
    assert second.hardware is not None
    costs = {e.name: e for e in group(found, "Cost of a sample").entries}
    assert costs["cycles"].first == first.hardware.totals.cycles.total
    assert costs["bytes from and to external memory"].is_worse is False  # weights of 4 bits
    other = second.hardware.accelerator.model_copy(update={"name": "other", "clock_mhz": 1.0})
    hardware = second.hardware.model_copy(update={"accelerator": other})
    found = compare_reports(first, second.model_copy(update={"hardware": hardware}))
    assert {e.change for e in group(found, "Steps: cycles").entries} == {None}
    assert "two accelerators" in group(found, "Cost of a sample").text


def test_a_report_does_not_differ_from_itself(reports: tuple[Report, Report]):
    found = compare_reports(reports[0], reports[0])
    assert not [e for each in found.groups for e in each.entries if e.differs]
    assert found.notes == ()


def test_other_data_is_named_and_nothing_measured_is_compared(
    reports: tuple[Report, Report], small_network: nn.Module, small_images: torch.Tensor
):
    other = made(small_network, 2 * small_images, "w8a8")
    found = compare_reports(reports[0], other)
    assert "other data" in found.notes[0]
    assert {e.change for e in group(found, "Layers: SQNR").entries} == {None}
    assert "not comparable" in str(found)


def test_other_weights_are_named(reports: tuple[Report, Report], small_images: torch.Tensor):
    layers = [
        layer.model_copy(update={"observed": (-9.0, 9.0)}) if layer.node == "add" else layer
        for layer in reports[1].layers
    ]
    found = compare_reports(reports[0], reports[1].model_copy(update={"layers": tuple(layers)}))
    assert "'add'" in found.notes[0]


def test_reports_of_two_models_are_refused(
    reports: tuple[Report, Report], small_images: torch.Tensor
):
    other = nn.Sequential(nn.Flatten(), nn.Linear(432, 5)).eval()
    with pytest.raises(UsageError, match=r"two models.*stem\.0"):
        compare_reports(reports[0], made(other, small_images, "w8a8"))


def test_the_command_writes_every_form(files: tuple[Path, Path], tmp_path: Path):
    pytest.importorskip("jinja2")
    html, document = tmp_path / "c.html", tmp_path / "c.json"
    folder = tmp_path / "tables"
    done = call("compare", *files, "--html", html, "--json", document, "--csv", folder)
    assert done.exit_code == 0, done.output
    assert "SQNR" in done.stdout
    assert "Layers: SQNR" in html.read_text()
    assert Comparison.parse(document.read_text(), "comparison").names == tuple(map(str, files))
    with (folder / "layers-sqnr.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["change [dB]"]) == pytest.approx(
        float(rows[0]["second [dB]"]) - float(rows[0]["first [dB]"])
    )
    assert call("show", document).stdout.strip() in done.stdout


def test_reports_are_shown_again_from_their_documents(
    files: tuple[Path, Path], reports: tuple[Report, Report], tmp_path: Path
):
    pytest.importorskip("matplotlib")
    assert "engine mismatches" in call("show", files[0]).stdout
    made_page = call("html", files[0], "--output", tmp_path / "a.html")
    assert made_page.exit_code == 0, made_page.output
    assert (tmp_path / "a.html").read_text().count("<svg") >= 3
    tables = call("csv", files[0], "--output", tmp_path / "tables")
    assert str(tmp_path / "tables" / "layers.csv") in tables.stdout.splitlines()


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1, 2]", "is no report"), ("{", "not a JSON document"), ('{"layers": 1}', "is no report")],
)
def test_what_is_no_report_is_refused(content: str, message: str, tmp_path: Path):
    (tmp_path / "x.json").write_text(content)
    done = call("show", tmp_path / "x.json")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_reports_of_two_kinds_are_refused(files: tuple[Path, Path], tmp_path: Path):
    comparison = tmp_path / "c.json"
    assert call("compare", *files, "--json", comparison).exit_code == 0
    done = call("compare", files[0], comparison)
    assert done.exit_code == 2
    assert "is a chip report and" in " ".join(done.stderr.split())


def test_an_altered_report_is_refused(files: tuple[Path, Path], tmp_path: Path):
    body = json.loads(files[0].read_text()) | {"more": 1}
    (tmp_path / "x.json").write_text(json.dumps(body))
    assert call("compare", files[0], tmp_path / "x.json").exit_code == 2


@pytest.mark.parametrize(
    ("better", "second", "worse"),
    [("higher", 2.0, False), ("lower", 2.0, True), ("", 2.0, None), ("higher", 1.0, None)],
)
def test_a_change_is_better_or_worse(better: str, second: float, worse: bool | None):
    found = Difference.model_validate(
        {"name": "x", "first": 1.0, "second": second, "better": better}
    )
    assert found.is_worse is worse


def test_memory_cycles_and_data_are_compared(
    small_network: nn.Module, small_images: torch.Tensor, reports: tuple[Report, Report]
):
    first, second = reports
    assert first.memory is not None
    assert second.memory is not None
    found = compare_reports(first, second)
    entries = {entry.name: entry for entry in group(found, "Sizes and work").entries}
    assert entries["activations at once"].first == first.memory.peak_activation_bytes
    assert entries["activations at once"].second == second.memory.peak_activation_bytes
    names = {entry.name: entry.first for entry in group(found, "Provenance").entries}
    assert names["input x"] == first.data[0].sha256

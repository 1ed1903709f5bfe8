import hashlib
import json
import platform
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    Report,
    load_recipe,
    prepare,
    verify,
    write_html,
)
from photomask.chip.quantizers import LSQ
from photomask.chip.recipe import Recipe
from photomask.chip.verification.origin import recipe_record


@pytest.fixture(scope="module")
def report(
    small_program: IntegerProgram,
    small_network: nn.Module,
    small_images: Tensor,
    small_prepared: PreparedModel,
) -> Report:
    return verify(
        small_network,
        small_program,
        small_images,
        torch.arange(16) % 5,
        prepared=small_prepared,
        multiplier_widths=(),
    )


def test_the_data_are_known_by_their_hash(report: Report, small_images: Tensor):
    images, labels = report.data
    assert (images.name, images.what, images.shape) == ("x", "input", (16, 3, 12, 12))
    assert images.sha256 == hashlib.sha256(small_images.numpy().tobytes()).hexdigest()
    assert (labels.what, labels.shape, labels.dtype) == ("labels", (16,), "int64")
    assert labels.sha256 == hashlib.sha256((torch.arange(16) % 5).numpy().tobytes()).hexdigest()


def test_versions_date_and_command_are_those_of_the_process(report: Report, monkeypatch):
    run = report.run
    assert run is not None
    assert run.versions["torch"] == torch.__version__
    assert run.versions["Python"] == platform.python_version()
    monkeypatch.setattr("sys.argv", ["/opt/bin/photomask", "chip", "verify", "my net"])
    assert type(run).here(torch.device("cpu")).command == "photomask chip verify 'my net'"
    monkeypatch.setattr("sys.argv", ["/opt/site/photomask/__main__.py", "demo"])
    assert type(run).here(torch.device("cpu")).command == "photomask demo"


def test_the_recipe_is_the_document_that_load_recipe_reads(report: Report, tmp_path: Path):
    assert report.recipe is not None
    (tmp_path / "recipe.json").write_text(report.recipe.render())
    assert load_recipe(tmp_path / "recipe.json").rows() == load_recipe("w8a8").rows()
    assert Report.parse(report.render(), "report") == report


def test_a_recipe_that_json_cannot_hold_is_kept_as_text(
    small_network: nn.Module, small_images: Tensor
):
    class Own(LSQ):
        """A quantizer of the user's own."""

    plain = load_recipe("w8a8")
    recipe = Recipe("own", weight=Own(bits=8, symmetric=True), activation=plain.activation)
    prepare(small_network, recipe, small_images[:1])
    assert recipe_record(recipe) is None


def test_the_page_ends_with_the_origin(report: Report, small_images: Tensor, tmp_path: Path):
    write_html(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    last = text[text.rindex("<h2>") :]
    assert last.startswith("<h2>Origin")
    for fact in (report.program_sha256, report.data[0].sha256, torch.__version__):
        assert fact in last
    assert "Origin" not in str(report)
    assert json.loads(report.render())["data"][0]["sha256"] == report.data[0].sha256

from pathlib import Path

import pytest
from tests.cli.test_commands import MODEL, call

from photomask.chip import IntegerProgram
from photomask.chip.mixed_precision import Allocation


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "model.py"
    path.write_text(MODEL)
    return path


def search(source: Path, output: Path, *options: object):
    model, images = f"{source}:net", f"{source}:images"
    common = ("--data", images, "--calibration-samples", 32, "--output", output)
    return call("chip", "search", model, *common, *options)


def test_a_recipe_is_found_that_converts(source: Path, tmp_path: Path):
    done = search(source, tmp_path / "found", "--as-uniform", 4, "--picture", tmp_path / "c.svg")
    assert done.exit_code == 0, done.output
    allocation = Allocation.load(tmp_path / "found" / "allocation.json")
    assert str(allocation) in done.output
    assert allocation.cost <= allocation.budget == 4 * (4 * 9 + 3 * 36)
    assert (tmp_path / "c.svg").stat().st_size > 1000
    recipe = tmp_path / "found" / "recipe.json"
    done = call(
        "chip", "convert", f"{source}:net", "--data", f"{source}:images",
        "--recipe", recipe, "--output", tmp_path / "export",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    program = IntegerProgram.load(tmp_path / "export")
    weights = {
        step.node: step.tensors["weight"] for step in program.steps if "weight" in step.tensors
    }
    found = {
        tensor.site: bits
        for tensor, bits in zip(allocation.sensitivities.tensors, allocation.bits, strict=True)
    }
    assert {node: program.formats[name].bits for node, name in weights.items()} == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "either --as-uniform BITS or --budget N"),
        (("--as-uniform", 4, "--budget", 100), "either --as-uniform BITS or --budget N"),
        (("--as-uniform", 4, "--widths", "2,x"), "--widths takes numbers from 1 to 16"),
        (("--budget", 10), "the cheapest choice costs 288"),
        (("--as-uniform", 5), "5 bits are no candidate"),
        (
            ("--as-uniform", 4, "--cost", "cycles", "--activation-widths", "4,8"),
            "only for the widths of weights",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(
    source: Path, tmp_path: Path, options: tuple, message: str
):
    done = search(source, tmp_path / "found", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_another_folder_is_not_overwritten(source: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    done = search(source, tmp_path, "--as-uniform", 4)
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

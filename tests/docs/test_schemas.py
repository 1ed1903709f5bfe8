"""The published JSON schemas: what Photomask writes keeps them, and what it refuses does not."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors import safe_open
from tests.attention.random_statistics import random_statistics
from torch import nn

from photomask.attention import plan
from photomask.chip import calibrate, check_outputs, convert, export, prepare, save_recipe, verify
from photomask.chip.cost import estimate, load_accelerator
from photomask.chip.cost.accelerator import PRESETS as ACCELERATORS
from photomask.chip.forms import RtlForm
from photomask.chip.recipe import PRESETS as RECIPES
from photomask.chip.recipe import load_recipe
from photomask.chip.target import PRESETS as TARGETS
from photomask.documents import RECORD_FILE

ROOT = Path(__file__).parents[2]
FILES_PAGE = ROOT / "docs" / "reference" / "files.md"


@pytest.fixture
def schemas(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "site"))
    return importlib.import_module("schemas")


def problems(schemas: ModuleType, name: str, text: str) -> list[str]:
    """Returns what a schema finds wrong with a document."""
    validator = Draft202012Validator(schemas.schema_of(name, schemas.published()[name]))
    return [error.message for error in validator.iter_errors(json.loads(text))]


def written_by_the_chip_pipeline(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields schema and text of what is written on the way from a model to its reports."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.randn(8, 1, 6, 6)
    prepared = calibrate(prepare(model, "w8a8", images[:1]), images)
    program = convert(prepared, "asic")
    out = folder / "out"
    export(program, out, program.quantize_input(images[:1]))
    for name, place in (
        ("program", "program.json"),
        ("manifest", "manifest.json"),
        ("conformance-vectors", "conformance/vectors.json"),
        ("output-record", RECORD_FILE),
    ):
        yield name, (out / place).read_text(encoding="utf-8")
    export(program, folder / "rtl", program.quantize_input(images[:1]), form=RtlForm())
    yield "rtl-design", (folder / "rtl" / "design.json").read_text(encoding="utf-8")
    yield "check-report", check_outputs(out, out / "golden").render()
    yield "verification-report", verify(model, program, images).render()
    yield "hardware-report", estimate(program, load_accelerator("reference")).render()


def written_by_the_attention_pipeline(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields schema and text of what is written on the way to a head plan."""
    statistics = random_statistics()
    statistics.save(folder / "statistics.safetensors")
    with safe_open(folder / "statistics.safetensors", "pt") as file:
        (header,) = file.metadata().values()
    yield "attention-statistics", header
    plan(statistics).save(folder / "plan.json")
    yield "head-plan", (folder / "plan.json").read_text(encoding="utf-8")


def test_every_schema_is_a_valid_schema_with_an_address_of_its_own(schemas: ModuleType):
    made = [schemas.schema_of(name, each) for name, each in schemas.published().items()]
    for schema in made:
        Draft202012Validator.check_schema(schema)
    assert len({schema["$id"] for schema in made}) == len(made)


def test_every_preset_keeps_its_schema(schemas: ModuleType, tmp_path: Path):
    presets = [
        *(("target", each.render()) for each in TARGETS.values()),
        *(("recipe", each.render()) for each in RECIPES.values()),
        *(("accelerator", each.render()) for each in ACCELERATORS.values()),
    ]
    save_recipe(load_recipe("w4a8-group"), tmp_path / "recipe.json")
    presets.append(("recipe", (tmp_path / "recipe.json").read_text(encoding="utf-8")))
    assert not [found for name, text in presets for found in problems(schemas, name, text)]


def test_what_the_chip_pipeline_writes_keeps_its_schemas(schemas: ModuleType, tmp_path: Path):
    for name, text in written_by_the_chip_pipeline(tmp_path):
        assert not problems(schemas, name, text), name


def test_what_the_attention_pipeline_writes_keeps_its_schemas(schemas: ModuleType, tmp_path: Path):
    for name, text in written_by_the_attention_pipeline(tmp_path):
        assert not problems(schemas, name, text), name


def test_the_examples_of_the_page_of_files_keep_their_schemas(schemas: ModuleType):
    text = FILES_PAGE.read_text(encoding="utf-8")
    (preprocessing,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (prompts,) = re.findall(r"```jsonl\n(.*?)```", text, re.DOTALL)
    assert not problems(schemas, "preprocessing", preprocessing)
    assert not [
        found for line in prompts.splitlines() for found in problems(schemas, "prompt", line)
    ]


@pytest.mark.parametrize(
    "change", [{"unheard_of": 1}, {"multiplier_bits": "16"}, {"schema_version": 2}, {"name": None}]
)
def test_what_reading_refuses_the_schema_refuses(schemas: ModuleType, change: dict[str, Any]):
    target = json.loads(TARGETS["asic"].render())
    assert not problems(schemas, "target", json.dumps(target))
    assert problems(schemas, "target", json.dumps(target | change))


def test_the_page_of_files_names_every_schema_with_its_version(schemas: ModuleType):
    rows = re.findall(
        r"\| `([a-z-]+)`( \d+)? \|$", FILES_PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {name: version.strip() or "–" for name, version in rows}
    assert told == {name: schemas.version_of(each) for name, each in schemas.published().items()}

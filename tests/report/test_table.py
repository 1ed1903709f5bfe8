"""Whatever prints as a table shows the same rows in a notebook."""

import html
import re
from typing import Any

import pytest

from photomask.attention import AttentionReport, AttentionStatistics, HeadPlan, Pattern
from photomask.attention.identity import ModelIdentity
from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    PreparedReport,
    Recipe,
    Report,
    Target,
    load_recipe,
    load_target,
    verify,
)
from photomask.chip.cost import Accelerator, estimate, load_accelerator
from photomask.chip.cost.estimates import HardwareReport
from photomask.chip.forms.memory import CheckReport
from photomask.chip.forms.rtl import SimulationReport
from photomask.chip.mixed_precision import Allocation, Measure, Sensitivities, Sensitivity
from photomask.chip.pretraining import ProbeReport
from photomask.chip.recipe import PRESETS as RECIPES
from photomask.chip.reconstruction import ReconstructionReport
from photomask.chip.target import PRESETS as TARGETS
from photomask.chip.training import TrainingReport
from photomask.documents import Document
from photomask.report import Cell, Column, Page, Section, Shown, Table, table_of_fields

WHAT_IS_SHOWN = [
    Accelerator,
    Allocation,
    AttentionReport,
    AttentionStatistics,
    CheckReport,
    HardwareReport,
    HeadPlan,
    IntegerProgram,
    PreparedModel,
    PreparedReport,
    ProbeReport,
    Recipe,
    ReconstructionReport,
    Report,
    Sensitivities,
    SimulationReport,
    Target,
    TrainingReport,
]
TABLE = Table("a title", [("name", "value"), ("<b>", "1 & 2"), ("", "'")], ["a note\nof two lines"])


class Page_(Shown):
    def shown(self) -> Page:
        columns = (Column("layer", number=False), Column("secret", in_terminal=False))
        rows = [(Cell("<conv>"), "hidden")]
        return Page(
            "title", "FAILED: 0 of 1", False, ["for <a> reason"], [("top-1", "5 %")],
            [Section("Layers", "of all", columns, rows), Section("Empty")],
        )  # fmt: skip


def words_of(element: str) -> str:
    """Returns the text of an HTML element, its tags replaced by spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", element)).split())


def test_text_is_title_padded_rows_and_notes():
    assert TABLE.text().splitlines() == [
        "a title",
        "name  value",
        "<b>   1 & 2",
        "      '",
        "a note",
        "of two lines",
    ]


def test_html_holds_the_same_escaped():
    found = TABLE.html()
    assert words_of(found) == " ".join(TABLE.text().split())
    assert "<b>" not in found
    assert found.count("<tr>") == 3


def test_a_table_without_rows_is_title_and_notes():
    empty = Table("", [("a", "b")], ["nothing"])
    assert empty.text() == "nothing"
    assert "<table>" not in empty.html()


def test_a_page_shows_what_a_terminal_shows():
    found = Page_()._repr_html_()
    for text in ("FAILED: 0 of 1", "for <a> reason", "top-1 5 %", "Layers", "of all", "<conv>"):
        assert text in words_of(found)
        assert text.partition(" ")[0] in str(Page_())
    for text in ("hidden", "secret", "Empty"):
        assert text not in found
        assert text not in str(Page_())


@pytest.mark.parametrize("kind", WHAT_IS_SHOWN, ids=lambda kind: kind.__name__)
def test_what_people_look_at_is_shown_as_a_table(kind: type):
    assert issubclass(kind, Shown)
    assert kind.__str__ is Shown.__str__
    assert "shown" in vars(kind)


def check_notebook(thing: Any) -> None:
    """Holds that a notebook shows every word that `print` shows, as small plain HTML."""
    element, text = thing._repr_html_(), str(thing)
    assert len(text.splitlines()) > 2
    assert words_of(element) == " ".join(text.split())
    assert not re.search(r"<script|<style|\bon\w+=|javascript:|https?:", element)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_shown(name: str):
    check_notebook(load_target(name))
    assert f"target {name!r}" in str(load_target(name))


def test_a_target_prints_each_of_its_fields():
    lines = {tuple(line.split(maxsplit=1)) for line in str(load_target("asic")).splitlines()}
    assert {
        ("rounding", "half_up"),
        ("weight_bits", "2 to 16"),
        ("per_channel_shift", "yes"),
        ("table_entries", "65,536"),
    } <= lines
    assert len(lines) == 1 + len(Target.model_fields)


def test_fields_of_documents_inside_are_rows():
    assert ("energy.external_byte_pj", "162.5") in load_accelerator("reference").shown().rows


def test_values_are_written_as_people_read_them():
    class Sample(Document):
        """A document."""

        widths: tuple[int, ...] = (1, 2, 4)
        pair: tuple[int, int] = (3, 4)
        nothing: str | None = None
        switch: bool = False

    rows = dict(table_of_fields("", Sample()).rows)
    assert rows == {
        "field": "value",
        "widths": "1, 2, 4",
        "pair": "3, 4",
        "nothing": "none",
        "switch": "no",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_shown(name: str):
    check_notebook(load_recipe(name))


def test_programs_prepared_models_and_estimates_are_shown(
    small_program: IntegerProgram, small_prepared: PreparedModel
):
    check_notebook(small_program)
    check_notebook(small_prepared)
    check_notebook(estimate(small_program, load_accelerator("edge")))
    check_notebook(load_accelerator("edge"))


def test_sensitivities_are_shown_by_width():
    found = Sensitivities(
        measure=Measure.OUTPUT_KL,
        samples=4,
        tensors=(
            Sensitivity(site="stem", role="weight", bits=(2, 4), errors=(1.0, 0.25)),
            Sensitivity(site="head", role="activation", bits=(4, 8), errors=(0.5, 0.125)),
        ),
    )
    check_notebook(found)
    assert found.shown().rows == [
        ("tensor", "of", "2 bits", "4 bits", "8 bits"),
        ("stem", "weight", "1", "0.25", ""),
        ("head", "activation", "", "0.5", "0.125"),
    ]


def test_a_plan_is_shown():
    model = ModelIdentity(
        model_type="qwen2_5_vl",
        layers=2,
        heads=4,
        kv_heads=2,
        head_size=16,
        hidden_size=64,
        vocabulary=300,
        fingerprint="0" * 64,
    )
    check_notebook(HeadPlan.uniform(model, Pattern.SINK))


def test_a_report_shows_its_checks(small_network, small_program, small_images):
    report = verify(small_network, small_program, small_images, multiplier_widths=())
    found = words_of(report._repr_html_())
    for check in report.checks:
        assert check.name in found
        assert check.condition in found
    for layer in report.layers:
        assert layer.node in found
    assert "PASSED" in found

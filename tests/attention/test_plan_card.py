"""The card of a plan: what it says, and that no text of a plan becomes anything but a text."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.attention.test_head_plan import MODEL, PATTERNS

from photomask.attention import AttentionReport, HeadPlan
from photomask.attention.patterns import SinkRule
from photomask.attention.plan_card import Origin, is_untouched_card, render_card
from photomask.attention.plan_records import (
    CalibrationSummary,
    HandDecision,
    PatternRecall,
    Provenance,
)
from photomask.attention.verification.documents import TaskResult
from photomask.documents import quoted_yaml
from photomask.errors import PlanError

yaml = pytest.importorskip("yaml")

UNKNOWN = Origin(None, None, None)


def plan_with(model_type: str = "qwen2_5_vl", task: str = "count", date: str = "2026") -> HeadPlan:
    return HeadPlan(
        model=MODEL.model_copy(update={"model_type": model_type}),
        sinks=SinkRule(),
        patterns=PATTERNS,
        decision=HandDecision(),
        calibration=CalibrationSummary(
            prompts=6,
            fewest_images=2,
            most_images=9,
            tasks={task: 6},
            density=0.3125,
            recall=PatternRecall(sink=0.5, intra_image=0.5, intra_image_sink=0.5),
            statistics_sha256="0" * 64,
        ),
        provenance=Provenance(photomask="0.2.0", torch="2", transformers=None, date=date),
    )


def report_on(plan: HeadPlan) -> AttentionReport:
    tasks = [
        TaskResult(task="a", questions=100, both_right=80, only_dense=10, only_sparse=4),
        TaskResult(task="b", questions=100, both_right=50, only_dense=0, only_sparse=0),
    ]
    return AttentionReport(
        plan=plan,
        prompts=200,
        images=(2, 4),
        tokens=(10, 20),
        tasks=tuple(tasks),
        divergence_mean=0.0125,
        divergence_p95=0.1,
        lost_output=0.1,
        agreement=99.0,
        density=0.456,
        literal_difference=0.0,
        literal_prompts=1,
        dense_seconds=1.0,
        sparse_seconds=1.0,
        checks=(),
    )


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def cells(card: str) -> dict[str, str]:
    """Returns the rows of all tables, as a reader of Markdown sees them."""
    rows = re.findall(r"^\| (.*?[^\\]) \| (.*) \|$", card, re.MULTILINE)
    return {re.sub(r"\\(.)", r"\1", a): re.sub(r"\\(.)", r"\1", b) for a, b in rows}


def test_a_card_states_model_revision_calibration_density_and_loss():
    plan = plan_with()
    origin = Origin("owner/model", "v1.5", "apache-2.0")
    card = render_card(plan, "owner/plan", origin, report_on(plan)).decode()
    assert front_matter(card) == {
        "library_name": "photomask",
        "pipeline_tag": "image-text-to-text",
        "license": "apache-2.0",
        "base_model": "owner/model",
        "tags": ["photomask", "head-plan", "sparse-attention", "qwen2_5_vl"],
    }
    found = cells(card)
    assert found["model"] == "owner/model"
    assert found["revision"] == "v1.5"
    assert found["calibrated on"] == "6 prompts of 2 to 9 images (count 6)"
    assert found["accuracy, dense"] == "70.00 %"
    assert found["accuracy with the plan"] == "67.00 % (+3.00 points lost)"
    assert found["task that loses most"] == "+6.00 points lost"
    assert found["density on them"] == "0.456 of the dense pairs of query and key"
    assert found["plan, SHA-256"] == plan.content_hash()
    assert "0\\.312 of the dense pairs" in card
    assert 'HeadPlan.from_pretrained("owner/plan")' in card.replace("'", '"')


def test_a_card_without_a_report_states_no_loss():
    card = render_card(plan_with(), "owner/plan", UNKNOWN, None).decode()
    assert "What it costs" not in card
    assert "license" not in front_matter(card)
    assert cells(card)["model"] == "not stated"


def test_a_report_about_another_plan_is_refused(tmp_path):
    with pytest.raises(PlanError, match="the report is about the plan"):
        plan_with().save_pretrained(tmp_path, report=report_on(plan_with(task="other")))
    assert list(tmp_path.iterdir()) == []


HOSTILE = (
    "x\n---\nlicense: mit\n---\n",
    '"]\nlicense: mit\n#',
    "| a | b |\n# Heading",
    "<script>alert(1)</script>",
    "[click](https://example.com) `code` ![x](y) **b** https://example.com",
    "<!-- photomask card " + "0" * 64 + " -->\n",
    "\x00\x1b[31m\u202e\u2028\ud7ff\U0001f600",
    "```\n# x",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_plan_becomes_front_matter_or_markup(text: str):
    plain = render_card(plan_with("x", "x", "x"), "p", UNKNOWN, None).decode()
    card = render_card(plan_with(text, text, text), "p", UNKNOWN, None).decode()
    found = front_matter(card)
    assert found["tags"][-1] == text
    assert {**found, "tags": []} == {**front_matter(plain), "tags": []}
    body = card.split("---\n", 2)[2]
    assert len(body.splitlines()) == len(plain.split("---\n", 2)[2].splitlines())
    outside = re.sub(r"\\.", "", body)  # what no backslash escapes
    for mark in ("<script", "](https://ex", "![", "**", "https://ex", "`code"):
        assert mark not in outside
    assert is_untouched_card(card)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_yaml_reads_a_quoted_text_as_it_was(text: str):
    assert yaml.safe_load(f"name: {quoted_yaml(text)}") == {"name": text}


@given(st.integers(0, 3000), st.sampled_from(["x", "\n", ""]))
def test_an_edited_card_is_told_from_an_untouched_one(place: int, sign: str):
    card = render_card(plan_with(), "owner/plan", UNKNOWN, None).decode()
    place %= len(card)
    edited = card[:place] + sign + card[place + 1 :]
    assert is_untouched_card(edited) == (edited == card)

"""Head plans: complete, strict, theirs alone, and readable."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from photomask.attention.head_plan import HeadPlan
from photomask.attention.identity import ModelIdentity
from photomask.attention.patterns import Pattern, SinkRule
from photomask.attention.plan_records import (
    BudgetDecision,
    CalibrationSummary,
    PatternRecall,
    VoteDecision,
)
from photomask.errors import DocumentError, PlanError, UsageError

MODEL = ModelIdentity(
    model_type="qwen2_5_vl",
    layers=3,
    heads=4,
    kv_heads=2,
    head_size=16,
    hidden_size=64,
    vocabulary=300,
    fingerprint="0" * 64,
)
PATTERNS = (
    (Pattern.DENSE, Pattern.DENSE, Pattern.SINK, Pattern.SINK),
    (Pattern.INTRA_IMAGE, Pattern.SINK, Pattern.DENSE, Pattern.INTRA_IMAGE_SINK),
    (Pattern.SINK,) * 4,
)
SUMMARY = CalibrationSummary(
    prompts=12,
    fewest_images=2,
    most_images=9,
    tasks={"compare": 12},
    density=0.25,
    recall=PatternRecall(sink=0.5, intra_image=0.6, intra_image_sink=0.9),
    statistics_sha256="1" * 64,
)


def mixed(**changes: object) -> HeadPlan:
    fields = {
        "model": MODEL,
        "sinks": SinkRule(leading=2),
        "patterns": PATTERNS,
        "decision": BudgetDecision(budget=0.1, lost_output=0.09),
        "calibration": SUMMARY,
    }
    return HeadPlan(**fields | changes)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestSaving:
    @pytest.mark.parametrize(
        "plan",
        [
            mixed(),
            mixed(
                decision=VoteDecision(
                    alpha=(0.1, 0.2), gamma_sink=0.9, gamma_intra_image=0.95, gamma_both=1.0
                )
            ),
            HeadPlan.uniform(MODEL, Pattern.INTRA_IMAGE),
        ],
        ids=["budget", "votes", "hand"],
    )
    def test_a_plan_survives_its_file(self, tmp_path, plan):
        plan.save(tmp_path / "plan.json")
        loaded = HeadPlan.load(tmp_path / "plan.json")
        assert loaded == plan
        assert type(loaded) is HeadPlan
        assert all(isinstance(head, Pattern) for row in loaded.patterns for head in row)

    def test_patterns_are_labels_in_the_file(self, tmp_path):
        mixed().save(tmp_path / "plan.json")
        stored = json.loads((tmp_path / "plan.json").read_text())
        assert stored["patterns"][1] == ["intra-image", "sink", "dense", "intra-image+sink"]

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"patterns": [["sink"] * 4] * 3}, "altered"),
            ({"kv_groups": True}, "share keys"),
            ({"extra": 1}, "field extra"),
            ({"schema_version": 3}, "field schema_version"),
            ({"schema_version": 2}, "and 1 in any other plan"),
            ({"decided_for": MODEL.model_dump()}, "and 1 in any other plan"),
            ({"patterns": [["sink"] * 4] * 2}, "patterns of 2 layers, but the model has 3"),
            ({"patterns": [["sink"] * 3] * 3}, "layer 0: there are patterns of 3 heads"),
            ({"patterns": [["sparse"] * 4] * 3}, "'sparse' is not a pattern"),
            ({"patterns": [[0] * 4] * 3}, "0 is not a pattern"),
            ({"sinks": {"leading": 3}}, "altered"),
            ({"decision": {"rule": "guess"}}, "field decision"),
        ],
    )
    def test_an_altered_file_is_refused(self, tmp_path, change, problem):
        path = tmp_path / "plan.json"
        mixed().save(path)
        edit(path, **change)
        with pytest.raises(DocumentError, match=problem) as caught:
            HeadPlan.load(path)
        assert str(path) in str(caught.value)

    def test_a_truncated_file_is_refused(self, tmp_path):
        path = tmp_path / "plan.json"
        mixed().save(path)
        path.write_text(path.read_text()[:-40])
        with pytest.raises(DocumentError):
            HeadPlan.load(path)

    def test_a_file_without_hash_is_refused(self, tmp_path):
        (tmp_path / "plan.json").write_text(mixed().render())
        with pytest.raises(DocumentError, match="content_sha256"):
            HeadPlan.load(tmp_path / "plan.json")

    def test_the_hash_leaves_provenance_out(self):
        elsewhere = mixed().provenance.model_copy(update={"date": "2001-01-01"})
        assert mixed(provenance=elsewhere).content_hash() == mixed().content_hash()
        assert mixed(sinks=SinkRule()).content_hash() != mixed().content_hash()


OTHER = MODEL.model_copy(update={"fingerprint": "a" * 64})
THIRD = MODEL.model_copy(update={"fingerprint": "b" * 64})


class TestRebasing:
    def test_a_rebased_plan_is_for_the_new_weights_and_says_what_it_was_decided_for(self):
        plan = mixed()
        rebased = plan.rebase(OTHER)
        rebased.check(OTHER)
        with pytest.raises(PlanError, match="other weights"):
            rebased.check(MODEL)
        assert rebased.decided_for == MODEL
        kept = ("patterns", "sinks", "decision", "calibration", "provenance", "kv_groups")
        assert all(getattr(rebased, name) == getattr(plan, name) for name in kept)
        assert "decided for weights 000000000000, then rebased" in str(rebased)

    def test_the_first_model_stays_recorded_and_the_way_back_is_the_first_plan(self):
        twice = mixed().rebase(OTHER).rebase(THIRD)
        assert (twice.model, twice.decided_for) == (THIRD, MODEL)
        assert twice.rebase(MODEL) == mixed().rebase(MODEL) == mixed()

    def test_a_rebased_plan_survives_its_file(self, tmp_path):
        plan = mixed().rebase(OTHER)
        plan.save(tmp_path / "plan.json")
        assert HeadPlan.load(tmp_path / "plan.json") == plan
        edit(tmp_path / "plan.json", decided_for=THIRD.model_dump())
        with pytest.raises(DocumentError, match="altered"):
            HeadPlan.load(tmp_path / "plan.json")

    def test_a_plan_that_was_not_rebased_has_the_file_and_the_hash_of_version_1(self, tmp_path):
        mixed().save(tmp_path / "plan.json")
        stored = json.loads((tmp_path / "plan.json").read_text())
        assert stored["schema_version"] == 1
        assert "decided_for" not in stored
        del stored["provenance"], stored["content_sha256"]
        text = json.dumps(stored, sort_keys=True).encode()
        assert mixed().content_hash() == hashlib.sha256(text).hexdigest()

    def test_another_architecture_is_refused_with_the_differences(self):
        other = OTHER.model_copy(update={"layers": 4, "vocabulary": 301})
        with pytest.raises(PlanError, match=r"layers: 3, 4; vocabulary: 300, 301\. Calibrate"):
            mixed().rebase(other)

    def test_a_plan_of_other_weights_says_that_it_can_be_rebased(self):
        with pytest.raises(PlanError, match=r"plan\.rebase\(model\)"):
            mixed().check(OTHER)


class TestChecking:
    def test_its_own_model_passes(self):
        mixed().check(MODEL)

    def test_other_weights_are_refused(self):
        other = MODEL.model_copy(update={"fingerprint": "a" * 64})
        with pytest.raises(PlanError, match="other weights or another revision"):
            mixed().check(other)

    def test_another_architecture_is_refused_by_field(self):
        other = MODEL.model_copy(update={"layers": 5, "fingerprint": "a" * 64})
        with pytest.raises(PlanError, match="layers: 3, 5"):
            mixed().check(other)


class TestPatterns:
    def test_a_uniform_plan_gives_every_head_the_pattern(self):
        plan = HeadPlan.uniform(MODEL, Pattern.SINK, SinkRule(leading=1))
        assert plan.count(Pattern.SINK) == 12
        assert plan.sinks.leading == 1
        assert plan.calibration is None

    def test_a_plan_by_hand_takes_any_patterns_that_fit(self):
        plan = HeadPlan.uniform(MODEL, Pattern.DENSE).with_patterns(PATTERNS)
        assert plan.patterns == PATTERNS
        with pytest.raises(UsageError, match="patterns of 1 layers"):
            plan.with_patterns(PATTERNS[:1])

    def test_groups_must_agree_where_the_plan_says_so(self):
        mixed(patterns=(PATTERNS[0], PATTERNS[0], PATTERNS[2]), kv_groups=True)
        with pytest.raises(ValidationError, match="layer 1: heads 0 to 1 share keys"):
            mixed(kv_groups=True)


def test_the_printed_map_shows_every_head_and_what_it_means():
    assert str(mixed()).splitlines() == [
        "head plan of qwen2_5_vl, 3 layers x 4 heads (2 kv), weights 000000000000",
        "layer  heads",
        "0      ## ss",
        "1      is #b",
        "2      ss ss",
        "s sink 7 (58%), i intra-image 1 (8%), b intra-image+sink 1 (8%), # dense 3 (25%)",
        "budget 0.1 of lost output, 0.09 spent",
        "density 0.250 on 12 prompts of 2 to 9 images",
    ]

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attention.tiny_models import tiny_model
from tests.attention.tiny_processor import TinyProcessor, tiny_prompt

from photomask.attention import (
    AttentionReport,
    AttentionStatistics,
    HeadPlan,
    Pattern,
    calibrate,
    compare_reports,
    verify,
    write_html,
)
from photomask.attention.encoding import EncodedPrompt
from photomask.attention.plugin import AttentionRequest, attach
from photomask.attention.verification import verification
from photomask.attention.verification.evaluation import (
    Answers,
    answer_all,
    balanced,
    compare_tasks,
)
from photomask.attention.verification.proof import CountingHandler
from photomask.errors import DataError, PlanError, UsageError
from photomask.prompts import Prompt
from photomask.report import without_progress

PROMPTS = [tiny_prompt(10, 20, 30, task="a"), tiny_prompt(40, 50, task="b"), tiny_prompt(60, 70)]


class AnsweringProcessor(TinyProcessor):
    """Knows one word for every token id."""

    @staticmethod
    def tokenizer(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [int(word) for word in text.split()]}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("qwen2_5_vl")


@pytest.fixture(scope="module")
def statistics(model: Any) -> AttentionStatistics:
    return calibrate(model, AnsweringProcessor("qwen2_5_vl"), PROMPTS)


def _with_answers(model: Any) -> list[Prompt]:
    """Gives every prompt two answers in turn: what the dense model says, and something else."""
    prompts = []
    for number, prompt in enumerate(PROMPTS * 2):
        encoded = verification.encode(AnsweringProcessor("qwen2_5_vl"), prompt)
        with torch.inference_mode():
            said = int(model(**encoded.inputs).logits[0, -1].argmax())
        answer = str(said if number < len(PROMPTS) else (said + 1) % 64)
        prompts.append(dataclasses.replace(prompt, answer=answer))
    return prompts


@pytest.fixture(scope="module")
def report(model: Any, statistics: AttentionStatistics) -> AttentionReport:
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    return verify(
        model, plan, AnsweringProcessor("qwen2_5_vl"), _with_answers(model), statistics=statistics
    )


def test_a_dense_plan_changes_nothing(model: Any):
    plan = HeadPlan.uniform(model, Pattern.DENSE)
    found = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), _with_answers(model))
    assert found.checks[0].passed
    assert found.verdict == "not decided"  # six questions say nothing about accuracy
    assert (found.density, found.divergence_mean, found.agreement) == (1.0, 0.0, 100.0)
    assert {(task.dense_accuracy, task.loss) for task in found.tasks} == {(50.0, 0.0)}
    assert found.curve == () == found.mass


def test_a_sparse_plan_is_compared_with_its_literal_mask(report: AttentionReport):
    assert 0 < report.density < 1
    assert report.divergence_mean > 0
    assert report.literal_prompts == verification.LITERAL_PROMPTS
    assert report.literal_difference < 1e-5


def test_what_runs_otherwise_than_planned_is_found(model: Any, monkeypatch: pytest.MonkeyPatch):
    """The kernel is replaced by one that ignores the plan."""

    def dense_run(self: CountingHandler, request: AttentionRequest) -> torch.Tensor:
        return request.dense()

    monkeypatch.setattr(CountingHandler, "__call__", dense_run)
    plan = HeadPlan.uniform(model, Pattern.SINK)
    found = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), _with_answers(model))
    assert found.verdict == "failed"
    assert "mask written out" in next(
        str(check) for check in found.checks if check.verdict == "failed"
    )


def test_the_curve_falls_with_the_budget(report: AttentionReport):
    densities = [point.density for point in report.curve]
    assert densities == sorted(densities, reverse=True)
    assert [point.budget for point in report.curve] == list(verification.CURVE_BUDGETS)


def test_the_curve_can_be_drawn_from_fewer_prompts(model: Any, statistics: AttentionStatistics):
    plan = HeadPlan.uniform(model, Pattern.DENSE)
    prompts = _with_answers(model)
    found = verify(
        model,
        plan,
        AnsweringProcessor("qwen2_5_vl"),
        prompts,
        statistics=statistics,
        curve_prompts=2,
    )
    assert {point.prompts for point in found.curve} == {2}
    # Prompts 0 and 1, the first of two tasks, which are right.
    assert found.curve[0].accuracy == found.curve[0].dense_accuracy == 100.0


def test_masses_add_up_to_one(report: AttentionReport):
    sums = torch.tensor(report.mass).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_density_is_visible_over_causal_pairs(model: Any, statistics: AttentionStatistics):
    """Calibration counts the same pairs, over the same prompts, by itself."""
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    counting = CountingHandler(plan)
    attached = attach(model, counting)
    for prompt in PROMPTS:
        inputs = verification.encode(AnsweringProcessor("qwen2_5_vl"), prompt).inputs
        with torch.inference_mode():
            attached(**inputs)
    pairs = statistics.pairs.sum((0, 1)).tolist()
    expected = pairs[Pattern.INTRA_IMAGE] / pairs[Pattern.DENSE]
    assert counting.density == pytest.approx(expected)


def test_a_report_is_a_document_and_a_page(report: AttentionReport, tmp_path: Path):
    assert AttentionReport.parse(report.render(), "report") == report
    text = str(report)
    assert "query-key pairs left" in text
    pytest.importorskip("matplotlib")
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4
    headings = (
        "Tasks",
        "Changed answers",
        "Time and memory to the first token",
        "Heads",
        "Where image tokens look",
        "Pairs of each image",
        "Pairs of each layer",
        "Budgets",
        "Provenance",
    )
    for heading in headings:
        assert heading in page


def test_a_report_of_an_earlier_version_is_read(report: AttentionReport):
    added = {
        *(f"pairs_by_{what}" for what in ("image", "layer", "pattern")),
        *("changed", "changed_answers", "first_token", "mean_loss_limit", "task_loss_limit"),
        *("data_sha256", "dtype", "run"),
    }
    body = {name: value for name, value in json.loads(report.render()).items() if name not in added}
    earlier = AttentionReport.parse(json.dumps(body | {"schema_version": 2}), "report")
    assert earlier.checks == report.checks
    assert "Tasks" in str(earlier)


def test_pairs_of_images_add_up_to_those_of_layers(model: Any):
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    found = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), PROMPTS)
    assert [each.prompts for each in found.pairs_by_image] == [3, 3, 1]
    first, second, third = (each.density for each in found.pairs_by_image)
    assert first > second > third  # later images have more images before them
    images = found.pairs_by_pattern[Pattern.INTRA_IMAGE]
    assert sum(each.visible for each in found.pairs_by_image) == images.visible * len(
        plan.patterns[0]
    )
    layers = found.pairs_by_layer
    assert sum(each.visible for each in layers) / sum(each.causal for each in layers) == (
        found.density
    )


def test_prompts_whose_answer_changed_are_written_down(model: Any):
    plan = HeadPlan.uniform(model, Pattern.SINK)
    prompts = _with_answers(model)
    found = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), prompts)
    assert found.changed == len(found.changed_answers) > 0
    lost = sum(task.only_dense for task in found.tasks)
    became_wrong = [each for each in found.changed_answers if each.dense_right]
    assert len(became_wrong) == lost
    for each in found.changed_answers:
        assert each.dense != each.sparse
        assert each.expected == prompts[each.prompt].answer
        assert each.text.count("[picture") == each.pictures
        assert (each.dense == each.expected) is each.dense_right


def test_tasks_say_which_of_them_are_not_decided(report: AttentionReport):
    section = next(each for each in report.page().sections if each.title == "Tasks")
    words = {str(getattr(row[-1], "text", row[-1])) for row in section.rows}
    assert words == {"not decided"}


def test_provenance_names_model_plan_data_and_command(report: AttentionReport):
    facts = dict(report.with_command("photomask attention verify").provenance())
    assert facts["plan, SHA-256"] == report.plan.content_hash()
    assert facts["prompts, SHA-256"] == report.data_sha256
    assert facts["command"] == "photomask attention verify"
    assert f"torch {torch.__version__}" in facts["versions"]


def test_reports_of_other_prompts_are_not_compared(model: Any, report: AttentionReport):
    plan = HeadPlan.uniform(model, Pattern.SINK)
    other = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), PROMPTS)
    found = compare_reports(report, other)
    assert "different prompts" in found.notes[0]
    assert "not comparable" in str(found)


def test_two_plans_are_compared(model: Any, report: AttentionReport):
    plan = HeadPlan.uniform(model, Pattern.SINK)
    other = verify(model, plan, AnsweringProcessor("qwen2_5_vl"), _with_answers(model))
    found = compare_reports(report, other)
    assert found.notes == ()
    entries = {each.name: each for group in found.groups for each in group.entries}
    left = entries["query-key pairs left"]
    assert left.change == pytest.approx(100 * (other.density - report.density))
    assert left.is_worse is (other.density > report.density)
    assert entries["plan, SHA-256"].differs


def test_reports_of_two_models_are_refused(model: Any, report: AttentionReport):
    other = tiny_model("qwen2_vl")
    plan = HeadPlan.uniform(other, Pattern.SINK)
    second = report.model_copy(update={"plan": plan})
    with pytest.raises(UsageError, match="two models"):
        compare_reports(report, second)


def test_a_plan_of_another_model_is_refused(model: Any):
    other = tiny_model("qwen2_vl")
    plan = HeadPlan.uniform(other, Pattern.SINK)
    with pytest.raises(PlanError, match="another model"):
        verify(model, plan, AnsweringProcessor("qwen2_5_vl"), PROMPTS)


def test_a_plan_before_its_model_is_refused(model: Any):
    plan = HeadPlan.uniform(model, Pattern.SINK)
    right = re.escape("verify(model, plan, processor, prompts)")
    for first, second in [(plan, model), (plan, plan), (model, PROMPTS)]:
        with pytest.raises(UsageError, match=right):
            verify(first, second, AnsweringProcessor("qwen2_5_vl"), PROMPTS)


def test_no_prompt_is_refused(model: Any):
    plan = HeadPlan.uniform(model, Pattern.SINK)
    with pytest.raises(DataError, match="at least one prompt"):
        verify(model, plan, AnsweringProcessor("qwen2_5_vl"), [])


def test_one_pass_tells_what_greedy_decoding_says(model: Any):
    encoded = verification.encode(AnsweringProcessor("qwen2_5_vl"), PROMPTS[0])
    said = model.generate(**encoded.inputs, max_new_tokens=3, do_sample=False, min_new_tokens=3)
    answer = said[0, encoded.tokens :].tolist()
    right = EncodedPrompt(encoded.inputs, tuple(answer))
    wrong = EncodedPrompt(encoded.inputs, (*answer[:2], (answer[2] + 1) % 64))
    found = answer_all(model, [right, wrong, encoded], without_progress, "")
    assert found.right == [True, False, None]


def test_logits_that_are_not_finite_are_an_error(model: Any, monkeypatch: pytest.MonkeyPatch):
    encoded = verification.encode(AnsweringProcessor("qwen2_5_vl"), PROMPTS[0])
    bad = torch.full((1, 64), torch.nan)
    monkeypatch.setattr("photomask.attention.verification.evaluation.answer_logits", lambda *_: bad)
    with pytest.raises(DataError, match="prompt 0: the model's logits are not finite"):
        answer_all(model, [encoded], without_progress, "")


@pytest.mark.parametrize("tasks", ["aaabbbcc", "abcabcab", "abbbacca"])
def test_chosen_prompts_are_balanced_in_any_order(tasks: str):
    chosen = balanced([Prompt(("q",), "x", task) for task in tasks], 6)
    assert chosen == sorted(chosen)
    assert sorted(tasks[place] for place in chosen) == list("aabbcc")


def test_tasks_are_counted_by_who_is_right():
    prompts = [Prompt(("q",), "x", task) for task in "aab"] + [Prompt(("q",), None, "a")]
    dense = Answers(right=[True, True, False, None])
    sparse = Answers(right=[True, False, True, None])
    a, b = compare_tasks(prompts, dense, sparse)
    assert (a.questions, a.both_right, a.only_dense, a.only_sparse) == (2, 1, 1, 0)
    assert (b.questions, b.both_right, b.only_dense, b.only_sparse) == (1, 0, 0, 1)
    assert (a.loss, b.loss) == (50.0, -100.0)

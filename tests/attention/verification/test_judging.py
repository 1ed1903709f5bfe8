"""What a report's conditions come to, and when its prompts cannot tell."""

import copy
import json
from typing import Any

import pytest
import torch
from tests.attention.tiny_models import tiny_model
from tests.attention.tiny_processor import TinyProcessor, tiny_prompt

from photomask.attention import AttentionReport, HeadPlan, Pattern, TaskResult, verify
from photomask.attention.plugin import AttentionRequest
from photomask.attention.verification import verification
from photomask.attention.verification.judging import judge
from photomask.attention.verification.proof import CountingHandler
from photomask.report import render_text

PROMPTS = [tiny_prompt(10, 20, 30), tiny_prompt(40, 50)]


def task(questions: int, only_dense: int, only_sparse: int, name: str = "t") -> TaskResult:
    both = questions - only_dense - only_sparse
    return TaskResult(
        task=name,
        questions=questions,
        both_right=both,
        only_dense=only_dense,
        only_sparse=only_sparse,
    )


@pytest.fixture(scope="module")
def base() -> AttentionReport:
    """A report without questions."""
    model = tiny_model("qwen2_5_vl")
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    return verify(model, plan, TinyProcessor("qwen2_5_vl"), PROMPTS)


def judged(base: AttentionReport, *tasks: TaskResult, **changes: Any) -> AttentionReport:
    report = base.model_copy(update={"tasks": tasks, **changes})
    return report.model_copy(update={"checks": judge(report, 0.8, 2.0)})


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (task(12, 0, 0), ["not decided", "not decided"]),
        (task(150, 0, 0), ["not decided", "passed"]),
        (task(1000, 0, 0), ["passed", "passed"]),
        (task(12, 1, 0), ["not decided", "not decided"]),
        (task(12, 11, 0), ["failed", "failed"]),
        (task(20000, 500, 260), ["failed", "passed"]),
        (task(400, 10, 8), ["not decided", "not decided"]),
    ],
    ids=str,
)
def test_accuracy_is_judged_by_the_interval_of_its_loss(
    base: AttentionReport, found: TaskResult, verdicts: list[str]
):
    checks = judged(base, found).checks[1:]
    assert [check.verdict for check in checks] == verdicts
    low, high = found.loss_interval
    for check, limit in zip(checks, (0.8, 2.0), strict=True):
        assert (check.verdict == "passed") is (high <= limit)
        assert (check.verdict == "failed") is (low > limit)


def test_one_bad_task_fails_among_many_good_ones(base: AttentionReport):
    tasks = [task(1000, 0, 0, "good"), task(1000, 100, 0, "bad"), task(12, 0, 0, "small")]
    check = judged(base, *tasks).checks[2]
    assert check.verdict == "failed"
    assert "'bad'" in check.name


def test_more_questions_are_named_that_would_decide(base: AttentionReport):
    found = judged(base, task(400, 8, 8)).checks[2]
    assert found.undecided.endswith("like them would decide")
    needed = int(found.undecided.split("some ")[1].split(" ")[0].replace(",", ""))
    scale = needed / 400
    more = task(needed, round(8 * scale), round(8 * scale))
    assert judged(base, more).checks[2].verdict == "passed"


def test_prompts_without_answers_decide_nothing_about_accuracy(base: AttentionReport):
    assert [check.verdict for check in base.checks] == ["passed", "not decided", "not decided"]
    assert all("no prompt has an answer" in check.undecided for check in base.checks[1:])
    assert base.verdict == "not decided"


def test_prompts_that_are_too_long_leave_the_literal_mask_undecided(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(verification, "LITERAL_TOKENS", 3)
    model = tiny_model("qwen2_5_vl")
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    found = verify(model, plan, TinyProcessor("qwen2_5_vl"), PROMPTS)
    assert found.literal_prompts == 0
    assert found.checks[0].verdict == "not decided"
    assert "too long" in str(found.checks[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_allowed_what_the_dense_model_rounds(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    model = copy.deepcopy(tiny_model("qwen2_5_vl")).to(dtype)
    plan = HeadPlan.uniform(model, Pattern.INTRA_IMAGE)
    found = verify(model, plan, HalfProcessor(dtype), PROMPTS)
    assert found.rounding > 0
    assert found.checks[0].passed
    assert found.checks[0].limit == max(0.1, 200 * found.rounding)

    def dense_run(self: CountingHandler, request: AttentionRequest) -> torch.Tensor:
        return request.dense()

    monkeypatch.setattr(CountingHandler, "__call__", dense_run)
    wrong = verify(model, plan, HalfProcessor(dtype), PROMPTS)
    assert wrong.rounding == found.rounding  # measured without what is under test
    assert wrong.checks[0].verdict == "failed"


class HalfProcessor(TinyProcessor):
    """Gives pixels in half precision."""

    def __init__(self, dtype: torch.dtype):
        super().__init__("qwen2_5_vl")
        self.dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        inputs = super().__call__(*args, **kwargs)
        return {**inputs, "pixel_values": inputs["pixel_values"].to(self.dtype)}


def test_the_page_shows_what_is_not_decided(base: AttentionReport):
    report = judged(base, task(12, 0, 0))
    page = report.page()
    assert page.passed is None
    assert page.verdict.startswith("NOT DECIDED: 1 of 3 checks hold")
    assert "after 12 questions the 95 % interval" in render_text(page, width=400)


def test_reports_of_version_1_are_read(base: AttentionReport):
    document = json.loads(judged(base, task(1000, 0, 0)).render())
    document["schema_version"] = 1
    del document["rounding"]
    old = AttentionReport.parse(json.dumps(document), "report.json")
    assert (old.schema_version, old.rounding, old.verdict) == (1, 0.0, "passed")

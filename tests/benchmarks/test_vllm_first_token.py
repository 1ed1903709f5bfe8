import csv
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from photomask.attention import HeadPlan, Pattern
from photomask.zoo import picture_questions

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("vllm_first_token")


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "vllm_first_token.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timed(seconds: float, extra: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "tokens": 36_355,
        "generated": 1,
        "first_token": seconds / 2,
        "extra_gib": extra,
        "images": 28,
        "requests": 1,
    }


def answered(right: bool, logprob: float) -> dict[str, Any]:
    return {"task": "odd", "text": "a", "right": right, "logprobs": {"7": logprob, "8": -3.0}}


def test_nothing_is_timed_before_the_answers_were_compared(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.Bench, "_run", lambda *_: pytest.fail("an engine was started"))
    assert bench.main(["--parts", "text", "--results", str(tmp_path)]) == 1
    assert "run --parts answers first" in rows_in(tmp_path)[0]["note"]


@pytest.mark.parametrize(
    ("same", "sparse", "status"),
    [(-0.5, -0.51, 0), (-0.5000001, -0.51, 1), (-0.5, -0.6, 1)],
)
def test_the_gate_wants_a_dense_plan_bit_for_bit_and_a_sparse_one_like_transformers(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same: float,
    sparse: float,
    status: int,
) -> None:
    model, _ = picture_questions.load_vision_language()
    plans = [HeadPlan.uniform(model, each) for each in (Pattern.DENSE, Pattern.SINK)]
    answers = importlib.import_module("vllm_answers")
    monkeypatch.setattr(answers, "best_plan", lambda device: plans)
    monkeypatch.setattr(answers, "transformers_answers", lambda *_: [answered(True, -0.52)])

    def run(self: Any, part: str, plan: str | None, model: Path) -> list[dict[str, Any]]:
        value = -0.5 if plan is None else same if "dense" in plan else sparse
        return [answered(True, value)]

    monkeypatch.setattr(bench.Bench, "_run", run)
    assert bench.main(["--parts", "answers", "--results", str(tmp_path)]) == status
    assert ("gate" in {row["metric"] for row in rows_in(tmp_path)}) == (status == 0)


def test_plans_stand_beside_dense_with_their_ratio(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.Bench, "require_green", lambda self: None)
    runs = []

    def run(self: Any, part: str, plan: str | None, model: Path) -> list[dict[str, Any]]:
        runs.append(None if plan is None else HeadPlan.load(Path(plan)).count(Pattern.DENSE))
        assert json.loads((model / "config.json").read_text())["text_config"]["vocab_size"] == 2048
        return [timed(1.2 if plan is None else 0.8, 0.1)]

    monkeypatch.setattr(bench.Bench, "_run", run)
    asked = ["--parts", "first-token", "--tokens", "36864", "--plans", "0", "30"]
    assert bench.main([*asked, "--results", str(tmp_path)]) == 0
    assert runs == [None, 0, 28 * 9]
    ratios = [row for row in rows_in(tmp_path) if row["metric"] == "speed over dense"]
    assert [float(row["value"]) for row in ratios] == pytest.approx([1.5, 1.5])
    assert ratios[1]["implementation"] == "photomask, 30 % dense"


def test_an_engine_finds_the_plugin_by_its_entry_point(bench: ModuleType, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from importlib.metadata import entry_points\n"
        "found = {each.name: each for each in entry_points(group='vllm.general_plugins')}\n"
        "print(found['photomask'].load().__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=bench.with_entry_point(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "photomask.attention.vllm.registration"

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from photomask.attention import AttentionReport, AttentionStatistics, HeadPlan
from photomask.cli import app
from photomask.cli import demo as demo_module
from photomask.prompts import write_prompts
from photomask.zoo import picture_questions

ZOO = "picture-questions"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["attention", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts, statistics and a plan, made by the commands."""
    folder = tmp_path_factory.mktemp("attention")
    write_prompts(folder / "prompts.jsonl", picture_questions.calibration_prompts(3))
    held_out = picture_questions.held_out_prompts(1, pictures=3)
    write_prompts(folder / "held-out.jsonl", held_out)
    prompts, statistics = folder / "prompts.jsonl", folder / "statistics.safetensors"
    made = call("calibrate", ZOO, "--data", prompts, "--output", statistics, "--device", "cpu")
    assert made.exit_code == 0, made.output
    assert "3 prompts" in made.stdout
    made = call("plan", statistics, "--budget", 0.1, "--output", folder / "plan.json")
    assert made.exit_code == 0, made.output
    return folder


def test_the_commands_make_what_the_library_loads(place: Path):
    plan = HeadPlan.load(place / "plan.json")
    statistics = AttentionStatistics.load(place / "statistics.safetensors")
    assert plan.calibration is not None
    assert plan.calibration.statistics_sha256 == statistics.content_hash()
    assert not (place / "statistics.safetensors.parts").exists()


def test_show_prints_a_plan_as_a_map_and_statistics_as_a_table(place: Path):
    shown = call("show", place / "plan.json").stdout
    assert "\n7      " in shown
    assert "budget 0.1" in shown
    shown = call("show", place / "statistics.safetensors").stdout
    assert "image rows look at sinks" in shown


def test_verify_writes_both_reports(place: Path, tmp_path: Path):
    html, document = tmp_path / "report.html", tmp_path / "report.json"
    arguments = ["verify", ZOO, place / "plan.json", "--data", place / "held-out.jsonl"]
    done = call(*arguments, "--html", html, "--json", document, "--device", "cpu")
    report = AttentionReport.parse(document.read_text(), "report")
    assert (done.exit_code, report.verdict) == (3, "not decided"), done.output  # six questions
    assert "query-key pairs left" in done.stdout
    assert "NOT DECIDED" in done.stdout
    assert "not decided" in html.read_text()
    assert report.prompts == 6
    assert html.read_text().count("<svg") == 2


def test_the_limits_decide_the_exit_status(place: Path):
    arguments = ["verify", ZOO, place / "plan.json", "--data", place / "held-out.jsonl"]
    done = call(*arguments, "--mean-loss", -100, "--device", "cpu")
    assert done.exit_code == 1
    assert "FAILED" in done.stdout


def test_votes_and_groups_are_options_of_plan(place: Path, tmp_path: Path):
    statistics, output = place / "statistics.safetensors", tmp_path / "plan.json"
    done = call("plan", statistics, "--output", output, "--kv-groups")
    assert done.exit_code == 0, done.output
    assert HeadPlan.load(output).kv_groups
    done = call("plan", statistics, "--output", output, "--votes", "--alpha", 0.5, "--gamma", 0.5)
    assert done.exit_code == 0, done.output
    assert HeadPlan.load(output).decision.rule == "votes"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "gone.json"], "no file gone.json"),
        (["show", "gone.safetensors"], "no file gone.safetensors"),
        (["plan", "gone.safetensors", "--output", "plan.json"], "no file gone.safetensors"),
        (
            ["calibrate", "..", "--data", ZOO, "--output", "s.safetensors"],
            "cannot load the model '..'",
        ),
        (
            ["calibrate", ZOO, "--data", "gone.jsonl", "--output", "s.safetensors"],
            "no prompts 'gone.jsonl'",
        ),
        (
            ["calibrate", ZOO, "--data", ZOO, "--output", "s.safetensors", "--device", "hal"],
            "no device 'hal'",
        ),
    ],
)
def test_bad_input_is_one_message_and_status_two(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_altered_plan_is_refused(place: Path, tmp_path: Path):
    text = (place / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"dense"', '"sink"', 1))
    done = call("verify", ZOO, tmp_path / "plan.json", "--data", place / "held-out.jsonl")
    assert done.exit_code == 2
    assert "altered" in done.stderr


@pytest.mark.parametrize("budget", ["-0.1", "1.5", "nan"])
def test_a_budget_outside_its_range_is_refused(place: Path, tmp_path: Path, budget: str):
    statistics, output = place / "statistics.safetensors", tmp_path / "plan.json"
    done = call("plan", statistics, "--output", output, "--budget", budget)
    assert done.exit_code == 2
    assert not output.exists()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    output = tmp_path / "statistics.safetensors"
    done = call("calibrate", ZOO, "--data", place / "prompts.jsonl", "--output", output)
    assert done.exit_code == 2
    assert "pip install 'photomask[attention]'" in " ".join(done.stderr.split())


def test_the_demo_ends_with_one_line_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, small in (("CALIBRATION_PROMPTS", 3), ("HELD_OUT_PER_TASK", 1), ("PICTURES", 4)):
        monkeypatch.setattr(demo_module, name, small)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    done = CliRunner().invoke(app, ["demo", "attention", "--output", str(tmp_path / "out")])
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"dense_accuracy", "sparse_accuracy", "worst_task_loss", "density", "seconds"} <= set(
        found
    )
    assert done.exit_code == {"passed": 0, "failed": 1, "not decided": 3}[found["verdict"]]
    assert found["passed"] is (found["verdict"] == "passed")
    assert 0 < found["density"] < 1
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"plan.json", "report.html", "report.json", "statistics.safetensors"} <= names


def test_serve_check_fails_without_vllm_and_names_what_fits(place: Path):
    done = call("serve-check", ZOO, place / "plan.json")
    assert done.exit_code == 1, done.output
    assert "pip install 'photomask[vllm]'" in done.stdout
    assert "Qwen2.5-VL" in done.stdout

"""The check before serving finds what would fail later, and names the command that works."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path

import pytest
from tests.attention.tiny_models import tiny_model

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.vllm.serve_check import ServingCheck, check_serving

QWEN = tiny_model("qwen2_5_vl")


def check(monkeypatch: pytest.MonkeyPatch, version: str | None, of: str = "qwen2_5_vl"):
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    plan = HeadPlan.uniform(tiny_model(of), Pattern.SINK)
    return check_serving(tiny_model("qwen2_5_vl"), plan, "a folder", Path("plan.json"))


def problems(found: ServingCheck) -> dict[str, str]:
    return {fact.name: fact.problem for fact in found.facts if fact.problem}


def test_everything_that_fits_ends_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, "0.22.1")
    assert found.fits
    assert found.shown().notes[-1] == found.command
    words = shlex.split(found.command)
    assert words[:5] == ["vllm", "serve", "a folder", "--attention-backend", "CUSTOM"]
    settings = json.loads(words[words.index("--additional-config") + 1])
    assert settings == {"photomask": {"plan": str(Path("plan.json").absolute())}}
    assert json.loads(words[words.index("--hf-overrides") + 1]) == {"is_mm_prefix_lm": True}
    assert "--no-enable-prefix-caching" not in words
    assert next(fact.found for fact in found.facts if "tensor" in fact.name) == "1, 2, 4"


@pytest.mark.parametrize(("version", "reason"), [(None, "not installed"), ("0.25.0", "0.25.0")])
def test_a_vllm_that_is_absent_or_untested_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, version: str | None, reason: str
) -> None:
    found = check(monkeypatch, version)
    assert [*problems(found)] == ["vLLM"]
    assert reason in problems(found)["vLLM"]
    assert not found.fits
    assert found.command not in str(found)


def test_a_plan_of_another_model_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, "0.33.0", of="qwen2_vl")
    assert [*problems(found)] == ["plan"]
    assert "belongs to another model" in str(found)


def test_a_bidirectional_family_is_served_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.22.1")
    gemma = tiny_model("gemma3")
    plan = HeadPlan.uniform(gemma, Pattern.SINK)
    words = shlex.split(check_serving(gemma, plan, "folder", Path("plan.json")).command)
    assert words[-2:] == ["--no-enable-prefix-caching", "--no-enable-chunked-prefill"]

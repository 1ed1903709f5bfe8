"""The plan of a server is found or refused, and so is every configuration that it cannot follow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.attention.tiny_models import tiny_model
from tests.attention.vllm.stand_in import FlashAttentionImpl, server

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.vllm.serving import (
    PLAN_FILE,
    check_architecture,
    check_server,
    find_plan,
    rule_of_layer,
)
from photomask.errors import DocumentError, PlanError, UsageError

QWEN = tiny_model("qwen2_5_vl")
GEMMA = tiny_model("gemma3")


def configured(plan: object) -> dict[str, Any]:
    return {"photomask": {"plan": str(plan)}}


def test_a_plan_comes_from_the_configuration_or_else_from_the_models_folder(
    tmp_path: Path,
) -> None:
    named, beside = (HeadPlan.uniform(QWEN, each) for each in (Pattern.SINK, Pattern.DENSE))
    named.save(tmp_path / "named.json")
    beside.save(tmp_path / PLAN_FILE)
    assert find_plan({}, str(tmp_path)) == beside
    assert find_plan(configured(tmp_path / "named.json"), str(tmp_path)) == named


@pytest.mark.parametrize("settings", [{}, {"plan": 3}, {"plan": "a", "budget": 1}, "plan.json"])
def test_settings_that_are_no_plan_settings_are_refused(settings: object) -> None:
    with pytest.raises(DocumentError, match="--additional-config, key 'photomask'"):
        find_plan({"photomask": settings}, "model")


def test_a_server_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"nor the file .*{PLAN_FILE}; name a plan"):
        find_plan({}, str(tmp_path))


def test_a_plan_of_another_architecture_is_refused() -> None:
    plan = HeadPlan.uniform(QWEN, Pattern.SINK)
    check_architecture(plan, QWEN.config)
    with pytest.raises(PlanError, match="model_type: qwen2_5_vl, gemma3"):
        check_architecture(plan, GEMMA.config)


def test_a_family_that_is_not_known_is_refused() -> None:
    plan = HeadPlan.uniform(QWEN, Pattern.SINK)
    with pytest.raises(UsageError, match="model type 'llama'"):
        check_architecture(plan, SimpleNamespace(model_type="llama"))


def test_a_usual_server_is_accepted() -> None:
    check_server(server(model_config__hf_config=QWEN.config))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model_config__is_mm_prefix_lm": False}, "is_mm_prefix_lm"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"parallel_config__decode_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__use_ubatching": True}, "micro-batches"),
        ({"cache_config__cache_dtype": "fp8_e4m3"}, "keys and values in fp8_e4m3"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "--kv-sharing-fast-prefill"),
    ],
)
def test_what_a_plan_cannot_follow_is_refused_at_start(
    changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        check_server(server(model_config__hf_config=QWEN.config, **changed))


def test_a_front_end_that_does_not_check_requests_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "0")
    check_server(server(model_config__hf_config=QWEN.config))
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(UsageError, match="unset VLLM_USE_RUST_FRONTEND"):
        check_server(server(model_config__hf_config=QWEN.config))


def test_images_in_both_directions_are_never_split() -> None:
    whole = {
        "model_config__hf_config": GEMMA.config,
        "cache_config__enable_prefix_caching": False,
        "scheduler_config__enable_chunked_prefill": False,
    }
    check_server(server(**whole))
    for changed in (
        {"cache_config__enable_prefix_caching": True},
        {"scheduler_config__enable_chunked_prefill": True},
        {"kv_transfer_config": object()},
    ):
        with pytest.raises(UsageError, match="must be computed whole"):
            check_server(server(**whole | changed))


def layer_of(window: int | None = None, **changed: Any) -> Any:
    impl = FlashAttentionImpl(4, 2, 8, window)
    vars(impl).update(changed)
    return SimpleNamespace(layer_name="model.layers.0.self_attn.attn", impl=impl)


def test_rule_of_a_layer_counts_the_query_into_its_window() -> None:
    assert rule_of_layer(layer_of(), False) == DenseRule()
    assert rule_of_layer(layer_of(7), False) == DenseRule(window=7)
    assert rule_of_layer(layer_of(7), True) == DenseRule(True, 7, True)


@pytest.mark.parametrize(
    "changed",
    [
        {"alibi_slopes": [1.0]},
        {"sinks": [1.0]},
        {"logits_soft_cap": 30.0},
        {"kv_sharing_target_layer_name": "model.layers.1"},
        {"attn_type": "encoder_decoder"},
        {"kv_cache_dtype": "fp8"},
        {"sliding_window": (3, 3)},
    ],
)
def test_a_layer_that_a_plan_cannot_follow_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="which a head plan cannot follow"):
        rule_of_layer(layer_of(**changed), False)

"""The front end refuses a configuration at start and a request alone, and never the server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.attention.tiny_models import END, IMAGE, START, tiny_model
from tests.attention.vllm import stand_in
from tests.attention.vllm.stand_in import server

from photomask.attention.head_plan import HeadPlan
from photomask.attention.patterns import Pattern
from photomask.attention.vllm.front_end import check_start, guard_requests, spans_of
from photomask.attention.vllm.serving import BACKEND
from photomask.errors import PlanError, UsageError

QWEN = tiny_model("qwen2_5_vl")
PROMPT = [5, 6, START, *[IMAGE] * 4, END, 7]


@pytest.fixture(autouse=True)
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, "0.22.1")
    monkeypatch.setitem(stand_in.REGISTERED, stand_in.AttentionBackendEnum.CUSTOM, BACKEND)


def with_plan(folder: Path, **changed: Any) -> Any:
    HeadPlan.uniform(QWEN, Pattern.SINK).save(folder / "plan.json")
    wanted = {"photomask": {"plan": str(folder / "plan.json")}}
    return server(model_config__hf_config=QWEN.config, additional_config=wanted, **changed)


def feature(*ranges: tuple[int, int]) -> Any:
    return SimpleNamespace(mm_position=SimpleNamespace(extract_embeds_range=lambda: [*ranges]))


def request(ids: list[int] | None, *features: Any, resumable: bool = False) -> Any:
    return SimpleNamespace(
        prompt_token_ids=ids, mm_features=[*features] or None, resumable=resumable
    )


def processor_class() -> type[stand_in.InputProcessor]:
    class Guarded(stand_in.InputProcessor):
        def __init__(self, vllm_config: Any, renderer: Any = None):
            super().__init__(vllm_config, renderer)

        def process_inputs(self, request_id: str, prompt: Any, *arguments: Any) -> Any:
            return super().process_inputs(request_id, prompt, *arguments)

    guard_requests(Guarded)
    return Guarded


def test_a_request_whose_spans_fit_its_ids_passes_unchanged(tmp_path: Path) -> None:
    processor = processor_class()(with_plan(tmp_path))
    for asked in (request(PROMPT, feature((3, 6))), request([5, 6]), request(None)):
        assert processor.process_inputs("a", asked) is asked


@pytest.mark.parametrize(
    "asked",
    [
        request(PROMPT, feature((3, 5))),
        request(PROMPT),
        request(None, feature((3, 6))),
        request(PROMPT, feature((3, 6)), resumable=True),
    ],
)
def test_a_request_whose_layout_is_not_certain_is_refused_alone(tmp_path: Path, asked: Any) -> None:
    processor = processor_class()(with_plan(tmp_path))
    with pytest.raises(stand_in.VLLMValidationError, match="LayoutError"):
        processor.process_inputs("a", asked)
    fine = request(PROMPT, feature((3, 6)))
    assert processor.process_inputs("b", fine) is fine


def test_an_image_that_vllm_hides_because_of_a_window_is_refused(tmp_path: Path) -> None:
    config = with_plan(tmp_path, model_config__hf_text_config=SimpleNamespace(sliding_window=3))
    with pytest.raises(stand_in.VLLMValidationError, match="sliding window of 3"):
        processor_class()(config).process_inputs("a", request(PROMPT, feature((3, 6))))


def test_other_back_ends_process_everything_as_before() -> None:
    config = server(attention_config__backend=stand_in.AttentionBackendEnum.FLASH_ATTN)
    odd = request(PROMPT, feature((0, 1)))
    assert processor_class()(config).process_inputs("a", odd) is odd
    assert not check_start(server(attention_config__backend=None))


def test_a_plan_with_another_back_end_is_refused_at_start(tmp_path: Path) -> None:
    config = with_plan(tmp_path, attention_config__backend=None)
    with pytest.raises(UsageError, match="add --attention-backend CUSTOM"):
        processor_class()(config)


def test_the_back_end_without_a_plan_is_refused_at_start() -> None:
    with pytest.raises(PlanError, match="there is no plan"):
        processor_class()(server(model_config__hf_config=QWEN.config))


def test_a_plan_of_another_model_is_refused_at_start(tmp_path: Path) -> None:
    config = with_plan(tmp_path)
    config.model_config.hf_config = tiny_model("qwen2_vl").config
    with pytest.raises(PlanError, match="belongs to another model"):
        processor_class()(config)


def test_a_class_is_guarded_once(tmp_path: Path) -> None:
    guarded = processor_class()
    process = guarded.process_inputs
    guard_requests(guarded)
    assert guarded.process_inputs is process


def test_spans_of_all_features_are_in_order_and_end_behind_their_last_token() -> None:
    assert spans_of([feature((9, 9)), feature((1, 3), (5, 6))]) == [(1, 4), (5, 7), (9, 10)]

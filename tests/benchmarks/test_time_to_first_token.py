import csv
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DENSE = "dense (SDPA)"
PEER = "FlashAttention-4 dense"
PLAN = "photomask, 30 % dense"
PARTS = {"attention", "linear layers", "schedule", "rest"}
TOY = ["--device", "cpu", "--scale", "tiny", "--tokens", "200", "--plans", "30", "--results"]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "time_to_first_token.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def flash_attn_func(
    query: Tensor, key: Tensor, value: Tensor, *, softmax_scale: float, causal: bool
) -> tuple[Tensor, None]:
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    output = scaled_dot_product_attention(
        q, k, v, scale=softmax_scale, is_causal=causal, enable_gqa=True
    )
    return output.transpose(1, 2), None


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the package that needs a GPU; transformers looks for the real one first."""
    importlib.import_module("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl")
    package, module = ModuleType("flash_attn"), ModuleType("flash_attn.cute")
    module.flash_attn_func = flash_attn_func  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
    return module


@pytest.mark.usefixtures("peer")
def test_contenders_are_compared_then_timed_and_their_parts_add_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    bench = load("time_to_first_token", monkeypatch)
    assert bench.main([*TOY, str(tmp_path), "--repetitions", "2"]) == 0
    rows = rows_in(tmp_path)
    assert {row["implementation"] for row in rows} == {DENSE, PEER, PLAN}
    errors = [row for row in rows if row["metric"] == "error of the logits"]
    assert len(errors) == 3
    timed = {row["implementation"]: row for row in rows if row["metric"] == "time to first token"}
    assert {row["repetitions"] for row in timed.values()} == {"2"}
    assert all(row["note"].count(".") >= 2 for row in timed.values())
    for name in timed:
        own = {row["metric"]: row for row in rows if row["implementation"] == name}
        assert set(own) >= PARTS
        assert sum(float(own[part]["value"]) for part in PARTS) > 0
        assert (f"speed over {DENSE}" in own) is (name != DENSE)
    picture = load("time_to_first_token_picture", monkeypatch)
    drawn = tmp_path / "images" / "picture.png"
    assert picture.main(["--results", str(tmp_path), "--output", str(drawn)]) == 0
    assert 5_000 < drawn.stat().st_size < 150_000


def test_an_absent_peer_and_a_pass_that_fails_are_rows_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    bench = load("time_to_first_token", monkeypatch)
    contender = bench.Contender
    prefill = contender.prefill

    def failing(self: Any, prompt: Any) -> Tensor:
        if self.name == DENSE and prompt.tokens == 200:
            raise torch.OutOfMemoryError("tried to allocate much")
        return prefill(self, prompt)

    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setattr(contender, "prefill", failing)
    assert bench.main([*TOY, str(tmp_path), "--repetitions", "1"]) == 0
    rows = rows_in(tmp_path)
    reasons = {row["implementation"]: row["note"] for row in rows if row["metric"] == "skipped"}
    assert "ImportError" in reasons[PEER] or "ModuleNotFoundError" in reasons[PEER]
    assert "GiB needed" in reasons[DENSE]
    assert any(row["metric"] == "time to first token" for row in rows)


def test_nothing_is_timed_behind_a_red_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bench = load("time_to_first_token", monkeypatch)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setattr(bench, "NOISE_FACTOR", 1e-3)
    assert bench.main([*TOY, str(tmp_path)]) == 1
    rows = rows_in(tmp_path)
    assert any(row["note"].startswith("red gate") for row in rows)
    assert not any(row["metric"] == "time to first token" for row in rows)


def test_no_round_is_begun_that_would_end_too_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bench = load("time_to_first_token", monkeypatch)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert bench.main([*TOY, str(tmp_path), "--minutes", "0"]) == 0
    notes = [row["note"] for row in rows_in(tmp_path) if row["metric"] == "skipped"]
    assert "no time left after 0 of 5 rounds" in notes


def test_dense_attention_with_a_mask_written_out_is_refused(monkeypatch: pytest.MonkeyPatch):
    qwen, where = load("random_qwen", monkeypatch), load("where_time_goes", monkeypatch)
    contenders = load("prefill_contenders", monkeypatch)
    scale = qwen.SCALES["tiny"]
    model = qwen.random_model(scale, 1, "cpu")
    prompt = qwen.long_prompt(scale, 150, model)
    dense = contenders.dense_contender(model)
    assert set(where.parts_of(dense, prompt)) == PARTS
    forward = model.forward

    def masked(**inputs: Any) -> Any:
        mask = torch.ones_like(inputs["input_ids"])
        mask[0, 0] = 0
        return forward(**inputs, attention_mask=mask)

    monkeypatch.setattr(model, "forward", masked)
    with pytest.raises(contenders.RedGateError, match="given a mask"):
        where.parts_of(dense, prompt)


def test_a_prompt_has_the_announced_length_and_whole_images(monkeypatch: pytest.MonkeyPatch):
    qwen = load("random_qwen", monkeypatch)
    scale = qwen.SCALES["tiny"]
    model = qwen.random_model(scale, 1, "cpu")
    prompt = qwen.long_prompt(scale, 333, model)
    assert (prompt.tokens, prompt.positions.shape) == (333, (3, 1, 333))
    inside = prompt.ids[0] == scale.ids["image_token_id"]
    assert inside.sum() == len(prompt.places) == len(prompt.features)
    assert len(prompt.places) % scale.side**2 == 0
    assert not inside[-scale.last_text :].any()

"""Where vLLM is installed: the stand-in has its names, and its own classes run a step with us.

No GPU is needed. vLLM's FlashAttention is replaced by the written-out attention.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.attention.vllm import stand_in, test_backend
from tests.attention.vllm.scenes import MIXED, scene_of

from photomask.attention.patterns import DenseRule
from photomask.attention.vllm.registration import TESTED_VERSIONS, register
from photomask.attention.vllm.serving import BACKEND
from photomask.attention.vllm.worker import PlanWorker

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("default"),
]


def real(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def newest() -> bool:
    return real("vllm.__version__") == TESTED_VERSIONS[1]


def test_the_stand_in_has_names_and_fields_of_the_real_classes() -> None:
    flash = "vllm.v1.attention.backends.flash_attn."
    common = "vllm.v1.attention.backend.CommonAttentionMetadata"
    mine = stand_in.NewerCommonAttentionMetadata if newest() else stand_in.CommonAttentionMetadata
    for ours, theirs in (
        (mine, real(common)),
        (stand_in.FlashAttentionMetadata, real(f"{flash}FlashAttentionMetadata")),
    ):
        names = {field.name for field in dataclasses.fields(theirs)}
        assert {field.name for field in dataclasses.fields(ours)} <= names
    for ours, theirs in (
        (stand_in.FlashAttentionImpl.forward, real(f"{flash}FlashAttentionImpl").forward),
        (
            stand_in.FlashAttentionMetadataBuilder.__init__,
            real(f"{flash}FlashAttentionMetadataBuilder").__init__,
        ),
    ):
        assert [*inspect.signature(ours).parameters] == [*inspect.signature(theirs).parameters]


def test_the_entry_point_registers_the_back_end_and_guards_requests() -> None:
    register()
    backends = real("vllm.v1.attention.backends.registry.AttentionBackendEnum")
    assert backends.CUSTOM.get_path() == BACKEND
    assert issubclass(
        backends.CUSTOM.get_class(),
        real("vllm.v1.attention.backends.flash_attn.FlashAttentionBackend"),
    )
    processor = real("vllm.v1.engine.input_processor.InputProcessor")
    assert processor._checks_requests_for_photomask
    config = real("vllm.config.AttentionConfig")(backend="CUSTOM")
    assert config.backend is backends.CUSTOM


def test_the_real_metadata_and_classes_run_a_mixed_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flash = importlib.import_module("vllm.v1.attention.backends.flash_attn")
    module = importlib.import_module(BACKEND.rpartition(".")[0])
    calls: list[int] = []

    def forward(self: Any, layer: Any, query: Any, key: Any, value: Any, *rest: Any) -> Any:
        calls.append(len(query))
        kv_cache, metadata, output = rest[:3]
        assert isinstance(metadata, flash.FlashAttentionMetadata)
        stand_in.attend_literally(self, query, kv_cache, metadata, output)
        return output

    monkeypatch.setattr(flash.FlashAttentionImpl, "forward", forward)
    monkeypatch.setattr(flash.FlashAttentionImpl, "__init__", stand_in.FlashAttentionImpl.__init__)
    vllm_config = test_backend.served(tmp_path)
    builder = object.__new__(module.PhotomaskMetadataBuilder)
    layers = {name: (at, vllm_config.layers[name]) for at, name in enumerate(test_backend.NAMES)}
    builder._worker = PlanWorker(vllm_config, layers, 0, 1, torch.device("cpu"))
    for name in ("aot_schedule", "use_full_cuda_graph"):
        setattr(builder, name, False)
    builder.aot_sliding_window, builder.max_cudagraph_size = (-1, -1), None
    builder.dcp_world_size = 1
    builder.rswa_window = builder.mm_prefix_query_ranges_np = None
    builder.cache_config = SimpleNamespace(cache_dtype="auto")
    builder.kv_cache_dtype = torch.float32
    common = real("vllm.v1.attention.backend.CommonAttentionMetadata")
    monkeypatch.setattr(test_backend, "OLDER", common)
    monkeypatch.setattr(test_backend, "NEWER", common)
    version, scene = real("vllm.__version__"), scene_of(MIXED)
    metadata = test_backend.metadata_of(scene, builder, version)
    for layer, patterns in enumerate(test_backend.PATTERNS):
        output = test_backend.run(scene, vllm_config, metadata, layer, version)
        expected = scene.literal(patterns, DenseRule())
        assert torch.allclose(output.double(), expected, atol=1e-5)
    assert calls == [31, 88, 31]

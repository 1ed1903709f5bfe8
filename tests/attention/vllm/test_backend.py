"""The back end computes image rows by the plan and leaves everything else to vLLM."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.attention.vllm import stand_in
from tests.attention.vllm.scenes import (
    HEADS,
    KEY_HEADS,
    MIXED,
    SINKS,
    SIZE,
    Request,
    Scene,
    scene_of,
)
from torch import Tensor

from photomask.attention.head_plan import HeadPlan
from photomask.attention.identity import ModelIdentity
from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.vllm.dense_flash import ServerFlash
from photomask.attention.vllm.serving import BACKEND
from photomask.errors import PlanError, UsageError

VERSIONS = ("0.22.1", "0.33.0")
PATTERNS = (
    (Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.DENSE, Pattern.INTRA_IMAGE_SINK),
    (Pattern.DENSE,) * HEADS,
    (Pattern.SINK,) * HEADS,
)
NAMES = [f"model.layers.{number}.self_attn.attn" for number in range(3)]
OLDER = stand_in.CommonAttentionMetadata
NEWER = stand_in.NewerCommonAttentionMetadata


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    stand_in.install(monkeypatch, request.param)
    monkeypatch.setattr(stand_in.FlashAttentionImpl, "calls", [])
    yield request.param
    monkeypatch.undo()


def served(folder: Path, family: str = "qwen2_5_vl", window: int | None = None) -> Any:
    """Returns the configuration of a server with a plan and three layers of the scenes' shape."""
    facts = {"layers": 3, "heads": HEADS, "kv_heads": KEY_HEADS, "head_size": SIZE}
    facts |= {"hidden_size": 64, "vocabulary": 64, "model_type": family}
    identity = ModelIdentity(**facts, fingerprint="0" * 64)
    HeadPlan.uniform(identity, Pattern.SINK, SINKS).with_patterns(PATTERNS).save(
        folder / "photomask_plan.json"
    )
    text = SimpleNamespace(
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=SIZE,
        hidden_size=64,
        vocab_size=64,
    )
    config = SimpleNamespace(model_type=family, get_text_config=lambda: text)
    module = importlib.import_module(BACKEND.rpartition(".")[0])
    layers = {
        name: SimpleNamespace(
            layer_name=name, impl=module.PhotomaskImpl(HEADS, KEY_HEADS, SIZE, window)
        )
        for name in NAMES
    }
    vllm_config = stand_in.server(model_config__hf_config=config, model_config__model=str(folder))
    if family == "gemma3":
        vllm_config.cache_config.enable_prefix_caching = False
        vllm_config.scheduler_config.enable_chunked_prefill = False
    vllm_config.layers = layers
    return vllm_config


def builder_of(vllm_config: Any) -> Any:
    module = importlib.import_module(BACKEND.rpartition(".")[0])
    return module.PhotomaskBackend.get_builder_cls()(None, NAMES, vllm_config, torch.device("cpu"))


def metadata_of(scene: Scene, builder: Any, version: str, prefilling: bool = True) -> Any:
    """Builds the metadata of a step in the order in which a version of vLLM does it."""
    starts, lengths = torch.tensor(scene.query_starts), torch.tensor(scene.lengths)
    ranges = {row: [(a, b - 1) for a, b in spans] for row, spans in scene.spans.items()}
    newer = {} if version == VERSIONS[0] else {"mm_req_doc_ranges": ranges}
    common = (NEWER if newer else OLDER)(
        query_start_loc=starts.int(),
        query_start_loc_cpu=starts.int(),
        seq_lens=lengths.int(),
        num_reqs=len(lengths),
        num_actual_tokens=len(scene.query),
        max_query_len=max(each.queries for each in scene.requests),
        max_seq_len=max(scene.lengths),
        block_table_tensor=scene.block_table,
        slot_mapping=torch.zeros(len(scene.query)),
        is_prefilling=torch.tensor([prefilling] * len(lengths)),
        seq_lens_cpu_upper_bound=lengths.int(),
        **newer,
    )
    metadata = builder.build(common_prefix_len=0, common_attn_metadata=common)
    if version == VERSIONS[0]:
        metadata.mm_prefix_range = ranges
    return metadata


def run(scene: Scene, vllm_config: Any, metadata: Any, layer: int, version: str) -> Tensor:
    output = torch.full(scene.query.shape, torch.nan)
    own = vllm_config.layers[NAMES[layer]]
    cache = scene.kv_cache(version)
    found = own.impl.forward(own, scene.query, None, None, cache, metadata, output)
    assert found is output
    return output


@pytest.mark.parametrize("window", [None, 13])
def test_every_row_of_a_mixed_batch_is_computed_once_and_right(
    version: str, tmp_path: Path, window: int | None
) -> None:
    scene, config = scene_of(MIXED), served(tmp_path, window=window)
    metadata = metadata_of(scene, builder_of(config), version)
    for layer, patterns in enumerate(PATTERNS):
        output = run(scene, config, metadata, layer, version)
        expected = scene.literal(patterns, DenseRule(window=window))
        assert torch.allclose(output.double(), expected, atol=1e-5)
    # The second layer is dense, so vLLM computes all 88 rows of it; elsewhere only 31.
    assert stand_in.FlashAttentionImpl.calls == [31, 88, 31]


def test_a_dense_layer_and_text_are_vllms_own_bit_for_bit(version: str, tmp_path: Path) -> None:
    config = served(tmp_path)
    builder = builder_of(config)
    text = scene_of([Request(30, 30), Request(40, 1, ((2, 20),))])
    for scene, layer in ((scene_of(MIXED), 1), (text, 0), (text, 2)):
        metadata = metadata_of(scene, builder, version)
        output = run(scene, config, metadata, layer, version)
        own = torch.empty_like(output)
        impl = config.layers[NAMES[layer]].impl
        stand_in.attend_literally(impl, scene.query, scene.kv_cache(version), metadata, own)
        assert torch.equal(output, own)


def test_steps_that_only_decode_carry_no_work_of_ours(version: str, tmp_path: Path) -> None:
    scene = scene_of([Request(40, 1), Request(50, 1, ((3, 20),))])
    metadata = metadata_of(scene, builder_of(served(tmp_path)), version, prefilling=False)
    assert metadata.photomask is None


def test_a_batch_of_images_alone_never_calls_vllms_attention(version: str, tmp_path: Path) -> None:
    scene, config = scene_of([Request(45, 45, ((3, 14), (17, 40)))]), served(tmp_path)
    metadata = metadata_of(scene, builder_of(config), version)
    output = run(scene, config, metadata, 2, version)
    assert torch.allclose(output.double(), scene.literal(PATTERNS[2], DenseRule()), atol=1e-5)
    assert stand_in.FlashAttentionImpl.calls == []


def test_dense_heads_of_a_bidirectional_family_see_whole_images(
    version: str, tmp_path: Path
) -> None:
    scene = scene_of([Request(45, 45, ((3, 14), (17, 40))), Request(20, 20)])
    config = served(tmp_path, "gemma3")
    metadata = metadata_of(scene, builder_of(config), version)
    output = run(scene, config, metadata, 1, version)
    expected = scene.literal(PATTERNS[1], DenseRule(bidirectional=True), "gemma3")
    assert torch.allclose(output.double(), expected, atol=1e-5)


def test_all_layers_of_a_step_share_their_schedules(version: str, tmp_path: Path) -> None:
    scene, config = scene_of(MIXED), served(tmp_path)
    metadata = metadata_of(scene, builder_of(config), version)
    step = metadata.photomask.step(metadata)
    run(scene, config, metadata, 0, version)
    first = step.images[0].call(DenseRule()).schedule(SINKS)
    run(scene, config, metadata, 2, version)
    assert metadata.photomask.step(metadata) is step
    assert step.images[0].call(DenseRule()).schedule(SINKS) is first


def test_each_prefill_is_logged_once_with_its_density(
    version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene, config = scene_of(MIXED), served(tmp_path)
    metadata = metadata_of(scene, builder_of(config), version)
    with caplog.at_level(logging.INFO, "photomask.attention.vllm"):
        for layer in range(3):
            run(scene, config, metadata, layer, version)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("prefill of tokens 0 to 44 with 2 images: density 0.")
    assert lines[0].endswith("2 of 3 layers sparse, torch_prefill")
    assert lines[1].startswith("prefill of tokens 21 to 32 with 2 images: density 0.")


def test_a_step_without_spans_is_an_error_and_not_dense(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch, VERSIONS[0])
        scene, config = scene_of(MIXED), served(tmp_path)
        metadata = metadata_of(scene, builder_of(config), VERSIONS[0])
        del metadata.mm_prefix_range
        with pytest.raises(UsageError, match="has told no image spans"):
            run(scene, config, metadata, 0, VERSIONS[0])


def test_profiling_runs_without_metadata_are_vllms_own(version: str, tmp_path: Path) -> None:
    scene, config = scene_of(MIXED), served(tmp_path)
    assert not run(scene, config, None, 0, version).any()


def test_layers_of_another_shape_are_refused_at_start(version: str, tmp_path: Path) -> None:
    config = served(tmp_path)
    config.layers[NAMES[2]].impl.num_heads = 2
    with pytest.raises(PlanError, match=r"layers\.2\..* is layer 2 with 2 heads"):
        builder_of(config)


def test_cuda_graphs_hold_decode_only(version: str) -> None:
    module = importlib.import_module(BACKEND.rpartition(".")[0])
    supported = module.PhotomaskMetadataBuilder.get_cudagraph_support(None, None)
    assert supported is stand_in.AttentionCGSupport.UNIFORM_BATCH


def test_the_back_end_takes_image_spans_and_never_a_shared_prefix(
    version: str, tmp_path: Path
) -> None:
    backend = importlib.import_module(BACKEND.rpartition(".")[0]).PhotomaskBackend
    assert backend.get_name() == "CUSTOM"
    assert backend.supports_mm_prefix()
    facts = [SIZE, torch.float16, "auto", 16, False, False, False, True, (9, 0)]
    assert backend.supports_combination(*facts) is None
    del facts[7]
    assert backend.supports_combination(*facts) is None
    assert builder_of(served(tmp_path)).use_cascade_attention(512) is False


def test_dense_heads_of_sparse_layers_get_vllms_own_kernel(version: str, tmp_path: Path) -> None:
    config = served(tmp_path)
    assert builder_of(config)._worker.dense_kernel is None  # this vLLM knows no version
    for layer in config.layers.values():
        layer.impl.vllm_flash_attn_version = 3
    assert isinstance(builder_of(config)._worker.dense_kernel, ServerFlash)

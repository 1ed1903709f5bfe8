"""What the plug-in uses of vLLM, for machines without it: names and fields as in its sources.

The attention of the stand-in is written out, over pages. `test_installed_vllm.py` compares
its names with the real ones wherever vLLM is installed.
"""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from photomask.attention.vllm.paged_prefill import pages_of
from photomask.attention.vllm.serving import BACKEND


@dataclass
class CommonAttentionMetadata:
    query_start_loc: Tensor
    query_start_loc_cpu: Tensor
    seq_lens: Tensor
    num_reqs: int
    num_actual_tokens: int
    max_query_len: int
    max_seq_len: int
    block_table_tensor: Tensor
    slot_mapping: Tensor
    is_prefilling: Tensor | None = None
    seq_lens_cpu_upper_bound: Tensor | None = None

    def replace(self, **fields: Any) -> Any:
        return replace(self, **fields)


@dataclass
class NewerCommonAttentionMetadata(CommonAttentionMetadata):
    mm_req_doc_ranges: dict[int, list[tuple[int, int]]] | None = None


@dataclass
class FlashAttentionMetadata:
    num_actual_tokens: int
    max_query_len: int
    query_start_loc: Tensor
    max_seq_len: int
    seq_lens: Tensor
    block_table: Tensor
    slot_mapping: Tensor
    scheduler_metadata: Tensor | None = None
    max_num_splits: int = 0
    causal: bool = True


class AttentionCGSupport(enum.Enum):
    ALWAYS = 3
    UNIFORM_BATCH = 2
    UNIFORM_SINGLE_TOKEN_DECODE = 1
    NEVER = 0


def attend_literally(
    impl: Any, query: Tensor, kv_cache: Tensor, metadata: Any, output: Tensor
) -> None:
    """Writes causal attention over pages, with the window of the layer."""
    starts = metadata.query_start_loc.tolist()
    key_cache, value_cache = pages_of(kv_cache, query.shape[2])
    for row, length in enumerate(metadata.seq_lens.tolist()):
        rows = slice(starts[row], starts[row + 1])
        places = torch.arange(length)
        pages = metadata.block_table[row].long()[places // key_cache.shape[1]]
        key, value = (cache[pages, places % cache.shape[1]] for cache in (key_cache, value_cache))
        group = query.shape[1] // key.shape[1]
        scores = torch.einsum(
            "qhd,khd->hqk", query[rows] * impl.scale, key.repeat_interleave(group, 1)
        )
        distance = (length - scores.shape[1] + torch.arange(scores.shape[1]))[:, None] - places
        seen = distance >= 0
        if impl.sliding_window[0] >= 0:
            seen &= distance <= impl.sliding_window[0]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        output[rows] = torch.einsum("hqk,khd->qhd", weights, value.repeat_interleave(group, 1))


def flash_attn_varlen_func(
    *,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    max_seqlen_q: int,
    cu_seqlens_q: Tensor,
    max_seqlen_k: int,
    cu_seqlens_k: Tensor,
    softmax_scale: float,
    causal: bool,
    return_softmax_lse: bool,
    out: Tensor | None,
    fa_version: int,
) -> Any:
    """Computes one prompt. The keywords are those of the real function."""
    if (cu_seqlens_q.tolist(), cu_seqlens_k.tolist()) != ([0, max_seqlen_q], [0, max_seqlen_k]):
        raise AssertionError("the ends of the prompt and its lengths differ")
    if not causal or fa_version not in (2, 3, 4):
        raise AssertionError("the stand-in computes causal attention")
    group, places = q.shape[1] // k.shape[1], torch.arange(max_seqlen_k)
    scores = torch.einsum("qhd,khd->hqk", q * softmax_scale, k.repeat_interleave(group, 1))
    seen = places <= (max_seqlen_k - max_seqlen_q + torch.arange(max_seqlen_q))[:, None]
    scores = scores.masked_fill(~seen, -torch.inf)
    found = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(group, 1))
    result = found if out is None else out.copy_(found)
    return (result, scores.logsumexp(-1)) if return_softmax_lse else result


class FlashAttentionImpl:
    calls: list[int] = []  # noqa: RUF012

    def __init__(self, heads: int, key_heads: int, size: int, window: int | None = None):
        self.num_heads = heads
        self.num_kv_heads = key_heads
        self.head_size = size
        self.scale = size**-0.5
        self.sliding_window = (-1, -1) if window is None else (window - 1, 0)
        self.alibi_slopes = self.sinks = self.kv_sharing_target_layer_name = None
        self.logits_soft_cap = 0
        self.attn_type = "decoder"
        self.kv_cache_dtype = "auto"

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        output_scale: Any = None,
        output_block_scale: Any = None,
    ) -> Tensor:
        FlashAttentionImpl.calls.append(len(query))
        if attn_metadata is None:
            return output.fill_(0)
        attend_literally(self, query, kv_cache, attn_metadata, output)
        return output


class FlashAttentionMetadataBuilder:
    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any):
        self.vllm_config = vllm_config

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> AttentionCGSupport:
        return AttentionCGSupport.ALWAYS

    def build(self, common_prefix_len: int, common: Any, fast_build: bool = False) -> Any:
        if getattr(common, "mm_req_doc_ranges", None) is not None:
            raise AssertionError("vLLM's own attention was told image spans")
        return FlashAttentionMetadata(
            common.num_actual_tokens,
            common.max_query_len,
            common.query_start_loc,
            common.max_seq_len,
            common.seq_lens,
            common.block_table_tensor,
            common.slot_mapping,
            scheduler_metadata=torch.zeros(4),
            max_num_splits=32,
        )


class FlashAttentionBackend:
    @classmethod
    def supports_combination(cls, *facts: Any) -> str | None:
        return "no image spans" if len(facts) == 9 and facts[7] else None


class AttentionBackendEnum(enum.Enum):
    FLASH_ATTN = "vllm.v1.attention.backends.flash_attn.FlashAttentionBackend"
    CUSTOM = None

    def get_path(self) -> str:
        return REGISTERED.get(self, self.value)

    def is_overridden(self) -> bool:
        return self in REGISTERED


REGISTERED: dict[Any, str] = {}


def register_backend(backend: Any, class_path: str) -> None:
    REGISTERED[backend] = class_path


class VLLMValidationError(ValueError):
    """What vLLM answers with the status 400."""


class InputProcessor:
    def __init__(self, vllm_config: Any, renderer: Any = None):
        self.vllm_config = vllm_config

    def process_inputs(self, request_id: str, prompt: Any, *arguments: Any) -> Any:
        return prompt


def install(patch: pytest.MonkeyPatch, version: str) -> None:
    """Puts the stand-in where the plug-in imports vLLM."""
    modules: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": version},
        "vllm.config": {"get_layers_from_vllm_config": lambda config, kind, names: config.layers},
        "vllm.distributed": {
            "get_tensor_model_parallel_rank": lambda: 0,
            "get_tensor_model_parallel_world_size": lambda: 1,
        },
        "vllm.exceptions": {"VLLMValidationError": VLLMValidationError},
        "vllm.model_executor.layers.attention": {"Attention": object},
        "vllm.model_executor.models.utils": {
            "extract_layer_index": lambda name: int(name.split(".")[2])
        },
        "vllm.v1.attention.backend": {"AttentionCGSupport": AttentionCGSupport},
        "vllm.v1.attention.backends.fa_utils": {"flash_attn_varlen_func": flash_attn_varlen_func},
        "vllm.v1.attention.backends.flash_attn": {
            "FlashAttentionBackend": FlashAttentionBackend,
            "FlashAttentionImpl": FlashAttentionImpl,
            "FlashAttentionMetadataBuilder": FlashAttentionMetadataBuilder,
        },
        "vllm.v1.attention.backends.registry": {
            "AttentionBackendEnum": AttentionBackendEnum,
            "register_backend": register_backend,
        },
        "vllm.v1.engine.input_processor": {"InputProcessor": InputProcessor},
    }
    for name, content in modules.items():
        parents = name.split(".")
        for depth in range(1, len(parents) + 1):
            place = ".".join(parents[:depth])
            if place not in modules and place not in sys.modules:
                patch.setitem(sys.modules, place, types.ModuleType(place))
        module = types.ModuleType(name)
        vars(module).update(content)
        patch.setitem(sys.modules, name, module)
    patch.delitem(sys.modules, BACKEND.rpartition(".")[0], raising=False)


def server(**changed: Any) -> Any:
    """Returns the parts of a `VllmConfig` that the plug-in reads; `a__b=c` changes a part."""
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            model="nowhere", is_mm_prefix_lm=True, hf_config=None, hf_text_config=SimpleNamespace()
        ),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=1, prefill_context_parallel_size=1, use_ubatching=False
        ),
        cache_config=SimpleNamespace(
            cache_dtype="auto", kv_sharing_fast_prefill=False, enable_prefix_caching=True
        ),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=True),
        attention_config=SimpleNamespace(backend=AttentionBackendEnum.CUSTOM),
        additional_config={},
        speculative_config=None,
        kv_transfer_config=None,
    )
    for path, value in changed.items():
        *parts, name = path.split("__")
        owner = config
        for part in parts:
            owner = getattr(owner, part)
        setattr(owner, name, value)
    return config

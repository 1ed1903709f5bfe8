"""The attention back end: vLLM's FlashAttention, except for chunks with tokens of images.

Only vLLM imports this module. What it decides is in the other modules of this folder, which need no
vLLM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from vllm import __version__ as version  # pyright: ignore[reportAttributeAccessIssue]
from vllm.config import get_layers_from_vllm_config  # pyright: ignore[reportMissingImports]
from vllm.distributed import (  # pyright: ignore[reportMissingImports]
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
)
from vllm.model_executor.layers.attention import Attention  # pyright: ignore[reportMissingImports]
from vllm.model_executor.models.utils import (  # pyright: ignore[reportMissingImports]
    extract_layer_index,
)
from vllm.v1.attention.backend import AttentionCGSupport  # pyright: ignore[reportMissingImports]
from vllm.v1.attention.backends import fa_utils  # pyright: ignore[reportMissingImports]
from vllm.v1.attention.backends.flash_attn import (  # pyright: ignore[reportMissingImports]
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)

from photomask.attention.vllm.dense_flash import ServerFlash
from photomask.attention.vllm.registration import check_version
from photomask.attention.vllm.serving import NAME
from photomask.attention.vllm.steps import OtherRequests
from photomask.attention.vllm.worker import PendingStep, PlanWorker

check_version(version)


class PhotomaskImpl(FlashAttentionImpl):
    """The attention of one layer."""

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Computes a step. Only chunks with tokens of images follow the plan."""
        pending: PendingStep | None = getattr(attn_metadata, "photomask", None)
        step = None if pending is None else pending.step(attn_metadata)
        fused = output_scale is not None or output_block_scale is not None
        if pending is None or step is None or fused or pending.is_dense(layer.layer_name):
            return super().forward(
                layer,
                query,
                key,
                value,
                kv_cache,
                attn_metadata,
                output,
                output_scale,
                output_block_scale,
            )
        if step.others is not None:
            rest = rest_of_metadata(attn_metadata, step.others)
            own = torch.empty_like(output[: len(step.others.tokens)])
            asked = query[step.others.tokens]
            super().forward(layer, asked, key, value, kv_cache, rest, own)
            output[step.others.tokens] = own
        table = attn_metadata.block_table
        pending.attend(layer.layer_name, query, kv_cache, table, self.scale, output)
        return output


class PhotomaskMetadataBuilder(FlashAttentionMetadataBuilder):
    """Prepares the steps of some layers."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any):
        """Loads the plan and checks the layers, when the server starts."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        layers = get_layers_from_vllm_config(vllm_config, Attention, layer_names)
        self._worker = PlanWorker(
            vllm_config,
            {name: (extract_layer_index(name), layer) for name, layer in layers.items()},
            get_tensor_model_parallel_rank(),
            get_tensor_model_parallel_world_size(),
            device,
            dense_kernel=_flash(layers.values()),
        )

    @classmethod
    def get_cudagraph_support(cls, vllm_config: Any, kv_cache_spec: Any) -> Any:
        """Returns that CUDA graphs may hold decode, and no prefill."""
        supported = super().get_cudagraph_support(vllm_config, kv_cache_spec)
        return min(supported, AttentionCGSupport.UNIFORM_BATCH, key=lambda each: each.value)

    def build(
        self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False
    ) -> Any:
        """Returns vLLM's metadata. If a prompt is being computed, it carries a `PendingStep`."""
        spans = getattr(common_attn_metadata, "mm_req_doc_ranges", None)
        if spans is not None:
            # vLLM's own attention never computes rows of images, so it needs no spans.
            common_attn_metadata = common_attn_metadata.replace(mm_req_doc_ranges=None)
        metadata = super().build(common_prefix_len, common_attn_metadata, fast_build)
        metadata.photomask = self._worker.pending(common_attn_metadata, spans)
        return metadata

    def use_cascade_attention(self, *args: Any, **options: Any) -> bool:
        """Returns False, because a shared prefix may hold images."""
        del args, options
        return False


class PhotomaskBackend(FlashAttentionBackend):
    """The attention back end that follows a head plan."""

    @staticmethod
    def get_name() -> str:
        """Returns the name by which vLLM finds this back end."""
        return NAME

    @staticmethod
    def get_impl_cls() -> type[PhotomaskImpl]:
        """Returns the attention of one layer."""
        return PhotomaskImpl

    @staticmethod
    def get_builder_cls() -> type[PhotomaskMetadataBuilder]:
        """Returns the class that prepares steps."""
        return PhotomaskMetadataBuilder

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        """Returns True, which makes vLLM hand out image spans."""
        return True

    @classmethod
    def supports_combination(cls, *facts: Any) -> str | None:
        """Returns why vLLM's own attention cannot compute text; None if it can.

        Args:
            facts: those of vLLM. In 0.33 the last but one says whether there are image spans, which
                vLLM's own attention never gets.
        """
        *first, capability = facts
        if len(first) == 8:
            first[7] = False
        return super().supports_combination(*first, capability)


def rest_of_metadata(metadata: Any, others: OtherRequests) -> Any:
    """Returns vLLM's metadata for the requests that its own attention computes.

    Args:
        metadata: the metadata of the step, a `FlashAttentionMetadata`.
        others: the requests.
    """
    changed: dict[str, Any] = {
        "num_actual_tokens": len(others.tokens),
        "max_query_len": others.longest_query,
        "query_start_loc": others.query_starts,
        "max_seq_len": others.longest,
        "seq_lens": metadata.seq_lens[others.rows],
        "block_table": metadata.block_table[others.rows],
        "scheduler_metadata": None,
        "max_num_splits": 0,
    }
    return dataclasses.replace(metadata, **changed)


def _flash(layers: Iterable[Any]) -> ServerFlash | None:
    """Returns vLLM's own kernel for dense heads, or None if vLLM has none for this device."""
    versions = {getattr(layer.impl, "vllm_flash_attn_version", None) for layer in layers}
    function = getattr(fa_utils, "flash_attn_varlen_func", None)
    version = versions.pop() if len(versions) == 1 else None
    return None if version is None or function is None else ServerFlash(function, version)

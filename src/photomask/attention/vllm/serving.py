"""Which plan a server runs, and whether the server's configuration fits it.

The functions read a `VllmConfig` by attributes that vLLM 0.22.1 and 0.33.0 both have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from photomask.attention.families import family_of
from photomask.attention.head_plan import HeadPlan
from photomask.attention.identity import ModelIdentity, architecture_of
from photomask.attention.patterns import DenseRule
from photomask.attention.plan_card import PLAN_FILE
from photomask.documents import Document, is_file
from photomask.errors import PlanError, UsageError

BACKEND = "photomask.attention.vllm.backend.PhotomaskBackend"
"""The attention back end, which vLLM imports when it is chosen."""

NAME = "CUSTOM"
"""The name by which every version of vLLM knows the back end."""

OWN_NAME = "PHOTOMASK"
"""Another name of the back end, which only newer versions of vLLM accept."""

CONFIGURATION_KEY = "photomask"
"""The key of vLLM's `--additional-config` whose value is a `PlanSettings`."""

MULTIMODAL_FLAG = "--hf-overrides '{\"is_mm_prefix_lm\": true}'"
"""The option that makes vLLM hand image spans to attention layers."""

RUST_FRONT_END = "VLLM_USE_RUST_FRONTEND"
"""The variable that starts a front end which does not run Python plug-ins."""

CACHE_DTYPES = ("auto", "float16", "bfloat16")


class PlanSettings(Document):
    """What `--additional-config '{"photomask": {…}}'` says.

    Attributes:
        plan: the path of the plan.
    """

    plan: str


def is_configured(additional_config: object) -> bool:
    """Returns whether `--additional-config` asks for a plan."""
    return isinstance(additional_config, dict) and CONFIGURATION_KEY in additional_config


def find_plan(additional_config: object, model: str) -> HeadPlan:
    """Returns the plan that the configuration names, or else the one in the model's folder.

    Args:
        additional_config: vLLM's `additional_config`.
        model: the folder of the model, or its id on the hub.

    Raises:
        DocumentError: the settings or the plan are not valid.
        PlanError: there is no plan.
    """
    if isinstance(additional_config, dict) and CONFIGURATION_KEY in additional_config:
        text = json.dumps(additional_config[CONFIGURATION_KEY])
        origin = f"--additional-config, key {CONFIGURATION_KEY!r}"
        return HeadPlan.load(Path(PlanSettings.parse(text, origin).plan))
    beside = Path(model) / PLAN_FILE
    if not is_file(beside):
        raise PlanError(
            "the attention back end of Photomask was chosen, but there is no plan: neither "
            f'--additional-config \'{{"{CONFIGURATION_KEY}": {{"plan": "plan.json"}}}}\' nor '
            f"the file {beside}; name a plan, or leave out --attention-backend"
        )
    return HeadPlan.load(beside)


def check_architecture(plan: HeadPlan, config: Any) -> None:
    """Checks that a plan was made for a model of this architecture. The weights are not compared.

    Args:
        plan: the plan.
        config: the configuration of the whole model, from transformers.

    Raises:
        PlanError: the architecture differs.
        UsageError: the model has no text tower, or is of no supported family.
    """
    family_of(config)
    facts = architecture_of(config, f"the configuration of {config.model_type!r}")
    served = ModelIdentity(**facts, fingerprint=plan.model.fingerprint)
    plan.model.check(served, "the plan", "Serve the model of the plan, or plan for this model")


def check_server(vllm_config: Any) -> None:
    """Checks that a server hands out image spans, and does nothing that a plan cannot follow.

    Args:
        vllm_config: the `VllmConfig`.

    Raises:
        UsageError: it does. The error names all reasons.
    """
    reasons = [*_reasons_against(vllm_config)]
    if reasons:
        raise UsageError(
            f"vLLM cannot serve a head plan with this configuration: {'; '.join(reasons)}"
        )


def _reasons_against(vllm_config: Any) -> Iterable[str]:
    """Yields a sentence for each thing in a configuration that a plan cannot follow."""
    model = vllm_config.model_config
    parallel = vllm_config.parallel_config
    cache = vllm_config.cache_config
    if not model.is_mm_prefix_lm:
        yield f"attention layers get no image spans; add {MULTIMODAL_FLAG}, and serve images"
    if os.environ.get(RUST_FRONT_END, "0") not in ("", "0"):
        yield f"the Rust front end does not check requests; unset {RUST_FRONT_END}"
    if vllm_config.speculative_config is not None:
        yield "speculative decoding is not supported; leave out --speculative-config"
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name) > 1:
            yield f"context parallelism is not supported; leave out {name}"
    if parallel.use_ubatching:
        yield "micro-batches are not supported; leave out --enable-dbo and --ubatch-size"
    if cache.cache_dtype not in CACHE_DTYPES:
        yield (
            f"keys and values in {cache.cache_dtype} are not supported; expected --kv-cache-dtype "
            f"{' or '.join(CACHE_DTYPES)}"
        )
    if cache.kv_sharing_fast_prefill:
        yield "--kv-sharing-fast-prefill is not supported"
    splits = (
        cache.enable_prefix_caching
        or vllm_config.scheduler_config.enable_chunked_prefill
        or vllm_config.kv_transfer_config is not None
    )
    if family_of(model.hf_config).bidirectional and splits:
        yield (
            "images of this family must be computed whole, because their tokens see each other in "
            "both directions; add --no-enable-prefix-caching --no-enable-chunked-prefill, and "
            "leave out --kv-transfer-config"
        )


def rule_of_layer(layer: Any, bidirectional: bool) -> DenseRule:
    """Returns what a dense head of a layer sees.

    vLLM lets the tokens of an image see each other even beyond a sliding window.

    Args:
        layer: an `Attention` layer of vLLM with its `impl`.
        bidirectional: whether the tokens of an image see each other in both directions.

    Raises:
        UsageError: the layer computes something that a plan cannot follow.
    """
    impl = layer.impl
    behind, ahead = impl.sliding_window
    for wrong, what in (
        (impl.alibi_slopes is not None, "ALiBi slopes"),
        (impl.sinks is not None, "learned sinks"),
        (bool(impl.logits_soft_cap), "a soft cap of its scores"),
        (impl.kv_sharing_target_layer_name is not None, "the keys of another layer"),
        (impl.attn_type != "decoder", f"attention of type {impl.attn_type!r}"),
        (impl.kv_cache_dtype not in CACHE_DTYPES, f"keys and values in {impl.kv_cache_dtype}"),
        (behind >= 0 and ahead != 0, f"a window of {ahead} tokens ahead"),
    ):
        if wrong:
            raise UsageError(f"{layer.layer_name} has {what}, which a head plan cannot follow")
    if behind < 0:
        return DenseRule(bidirectional)
    return DenseRule(bidirectional, window=behind + 1, window_spares_own_image=bidirectional)

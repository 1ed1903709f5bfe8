"""What one process of the server keeps of a plan, and what it computes in each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from photomask.attention.families import family_of
from photomask.attention.kernels import DenseKernel, Executor, LayerHeads
from photomask.attention.vllm.paged_prefill import PlannedLayer, attend_request, pages_of
from photomask.attention.vllm.prefill_log import PrefillLog
from photomask.attention.vllm.ranks import plan_of_rank
from photomask.attention.vllm.serving import (
    check_architecture,
    check_server,
    find_plan,
    rule_of_layer,
)
from photomask.attention.vllm.spans import Span
from photomask.attention.vllm.steps import Step, divide_step
from photomask.errors import PlanError, UsageError

Ranges = Mapping[int, Sequence[tuple[int, int]]]
"""vLLM's image spans by the number of the request: the first and the last token of each."""


class PlanWorker:
    """The plan, as far as it concerns some layers of one process.

    Attributes:
        family: the family of the model.
        layers: the layers by vLLM's names.
        device: the device of the process.
        executor: what computes sparse layers.
        dense_kernel: what computes dense heads of sparse layers on a GPU, or None.
        log: reports what each prefill computes; None where another process reports it.
    """

    def __init__(
        self,
        vllm_config: Any,
        layers: Mapping[str, tuple[int, Any]],
        rank: int,
        ranks: int,
        device: torch.device,
        executor: Executor = "auto",
        dense_kernel: DenseKernel | None = None,
    ):
        """Loads the plan, and checks that these layers can follow it.

        Args:
            vllm_config: the `VllmConfig`.
            layers: the number of each layer in the whole model, and vLLM's `Attention` layer.
            rank: the number of this process among those that share a layer.
            ranks: the number of processes that share a layer.
            device: the device of the process.
            executor: what computes sparse layers.
            dense_kernel: what computes dense heads of sparse layers on a GPU.

        Raises:
            PlanError: there is no plan, or it does not fit the model.
            UsageError: vLLM's configuration or a layer does something that a plan cannot follow.
            DocumentError: the plan or the settings are not valid.
        """
        model = vllm_config.model_config
        plan = find_plan(vllm_config.additional_config, model.model)
        check_architecture(plan, model.hf_config)
        check_server(vllm_config)
        self.family = family_of(model.hf_config)
        self.device = torch.device(device)
        self.executor: Executor = executor
        self.dense_kernel = dense_kernel
        share = plan_of_rank(plan, rank, ranks)
        self.layers = {
            name: self._planned(share, number, layer) for name, (number, layer) in layers.items()
        }
        rules = {layer.number: layer.rule for layer in self.layers.values()}
        self.log = PrefillLog(plan, rules) if rank == 0 else None

    def _planned(self, share: Any, number: int, layer: Any) -> PlannedLayer:
        """Returns what the plan says about a layer.

        Raises:
            PlanError: the plan has no such layer, or the layer has other heads.
        """
        impl, model = layer.impl, share.model
        found = (impl.num_heads, impl.num_kv_heads, impl.head_size)
        expected = (model.heads, model.kv_heads, model.head_size)
        if number >= model.layers or found != expected:
            raise PlanError(
                f"{layer.layer_name} is layer {number} with {found[0]} heads, {found[1]} key heads "
                f"and {found[2]} features, but the plan's share for this process has "
                f"{model.layers} layers of {expected[0]}, {expected[1]} and {expected[2]}"
            )
        heads = LayerHeads.of(share.patterns[number], model.kv_heads, self.device)
        return PlannedLayer(
            number, heads, rule_of_layer(layer, self.family.bidirectional), share.sinks
        )

    def pending(self, common: Any, spans: Ranges | None) -> PendingStep | None:
        """Returns the requests of a step, or None if no prompt is being computed.

        Args:
            common: vLLM's `CommonAttentionMetadata`.
            spans: the image spans, if vLLM has them yet.
        """
        prefilling = common.is_prefilling
        if prefilling is not None and not bool(prefilling.any()):
            return None
        lengths = common.seq_lens_cpu_upper_bound.tolist()
        return PendingStep(self, common.query_start_loc_cpu.tolist(), lengths, spans)


class PendingStep:
    """A step whose image requests are found when the first layer asks for them.

    vLLM 0.22 tells the image spans only after it has built the metadata of the step.
    """

    def __init__(
        self,
        worker: PlanWorker,
        query_starts: Sequence[int],
        lengths: Sequence[int],
        spans: Ranges | None,
    ):
        """Keeps what is known when vLLM builds the metadata."""
        self._worker = worker
        self._query_starts = query_starts
        self._lengths = lengths
        self._ranges = spans
        self._step: Step | None = None
        self._divided = False

    def step(self, metadata: Any) -> Step | None:
        """Returns the divided step; None if no chunk holds tokens of images.

        Args:
            metadata: the metadata of the step.

        Raises:
            UsageError: vLLM has told no image spans.
            LayoutError: the spans of a request do not fit the family.
        """
        if not self._divided:
            ranges = getattr(metadata, "mm_prefix_range", self._ranges)
            if ranges is None:
                raise UsageError(
                    "vLLM has told no image spans for this step, so nothing says which tokens "
                    "belong to images; this is an error in Photomask or in vLLM"
                )
            spans = {row: _spans(each) for row, each in ranges.items()}
            self._step = divide_step(
                self._worker.family, self._query_starts, self._lengths, spans, self._worker.device
            )
            self._divided = True
        return self._step

    def is_dense(self, layer_name: str) -> bool:
        """Returns whether vLLM's own attention computes all requests in a layer."""
        return self._worker.layers[layer_name].as_the_server

    def attend(
        self,
        layer_name: str,
        query: Tensor,
        kv_cache: Tensor,
        block_table: Tensor,
        scale: float,
        output: Tensor,
    ) -> None:
        """Writes the rows of all requests with images, one request after another.

        Args:
            layer_name: vLLM's name of the layer.
            query: the queries of the step, [T, H, D].
            kv_cache: the paged keys and values, as `pages_of` takes them.
            block_table: int32 [R, …], the pages of each request.
            scale: the factor of the scores.
            output: [T, H, D]. Only the rows of these requests are written.
        """
        worker = self._worker
        layer = worker.layers[layer_name]
        keys, values = pages_of(kv_cache, query.shape[2])
        for request in self._step.images if self._step is not None else ():
            attend_request(
                request,
                layer,
                query,
                keys,
                values,
                block_table,
                scale,
                output,
                executor=worker.executor,
                dense_kernel=worker.dense_kernel,
                log=worker.log,
            )


def _spans(ranges: Sequence[tuple[int, int]]) -> list[Span]:
    """Returns vLLM's spans, whose last token is included, as spans with a stop, in order."""
    return sorted((int(first), int(last) + 1) for first, last in ranges)

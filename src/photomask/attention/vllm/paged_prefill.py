"""Computes requests with images by their plan, over keys and values that lie in pages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from photomask.attention.kernels import (
    DenseKernel,
    Executor,
    LayerHeads,
    prefill_attention,
)
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.vllm.prefill_log import PrefillLog
from photomask.attention.vllm.steps import ImageRequest


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """What the plan says about the heads that this process computes of one layer.

    Attributes:
        number: the number of the layer in the whole model.
        heads: the patterns of the heads of this process.
        rule: the rule that says what a dense head of the layer sees.
        sinks: the rule that says which tokens are sinks.
    """

    number: int
    heads: LayerHeads
    rule: DenseRule
    sinks: SinkRule

    @property
    def as_the_server(self) -> bool:
        """Whether the server's own causal attention computes exactly what the plan says."""
        dense = all(pattern is Pattern.DENSE for pattern in self.heads.patterns)
        return dense and not self.rule.bidirectional


def gather_pages(cache: Tensor, blocks: Tensor, tokens: int) -> Tensor:
    """Copies the keys or values of one request out of the paged cache.

    Args:
        cache: [N, S, G, D], N pages of S tokens.
        blocks: int [≥ ⌈tokens / S⌉], the pages of the request in their order.
        tokens: how many tokens the request has.

    Returns:
        [1, G, tokens, D], whose last dimension is contiguous.
    """
    pages = -(-tokens // cache.shape[1])
    found = cache.index_select(0, blocks[:pages])
    return found.flatten(0, 1)[:tokens].transpose(0, 1)[None]


def attend_request(
    request: ImageRequest,
    layer: PlannedLayer,
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    scale: float,
    output: Tensor,
    *,
    executor: Executor = "auto",
    dense_kernel: DenseKernel | None = None,
    log: PrefillLog | None = None,
) -> None:
    """Writes the attention of one request into its rows of the output.

    The extra memory is that of the keys and values of one request and one layer.

    Args:
        request: the request.
        layer: the layer.
        query: the queries of the step, [T, H, D].
        key_cache: the paged keys, [N, S, G, D], which hold those of this step already.
        value_cache: the paged values, [N, S, G, D].
        block_table: int32 [R, …], the pages of each request of the batch.
        scale: the factor of the scores.
        output: [T, H, D]. Only the rows of the request are written.
        executor: what computes the layer.
        dense_kernel: what computes dense heads on a GPU; None leaves the choice to the executor.
        log: reports the request.

    Raises:
        DataError: the tensors do not fit each other, or no kernel takes them.
        UsageError: the device is too old for the kernels.
    """
    blocks, tokens = block_table[request.row], request.layout.tokens
    asked = query[request.rows].transpose(0, 1)[None]
    key = gather_pages(key_cache, blocks, tokens)
    value = gather_pages(value_cache, blocks, tokens)
    schedule = request.call(layer.rule).schedule(layer.sinks)
    kernels: list[str] = []
    found = prefill_attention(
        asked,
        key,
        value,
        schedule,
        layer.heads,
        scale,
        executor=executor,
        dense_kernel=dense_kernel,
        ran=kernels,
    )
    output[request.rows].copy_(found[0].transpose(0, 1))
    if log is not None and not request.reported:
        request.reported = True
        log.report(request, kernels)


def pages_of(kv_cache: Tensor, head_size: int) -> tuple[Tensor, Tensor]:
    """Returns the keys and the values of a layer's cache as [N, S, G, D] each, without a copy.

    Args:
        kv_cache: [2, N, S, G, D] in vLLM 0.22, or [N, G, S, 2 · D] in vLLM 0.33.
        head_size: the number of features of a head, D.
    """
    if kv_cache.ndim == 5:
        key, value = kv_cache.unbind(0)
        return key, value
    key, value = kv_cache.transpose(1, 2).split(head_size, dim=-1)
    return key, value

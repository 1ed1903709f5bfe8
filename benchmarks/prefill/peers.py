"""Who else computes a layer of prefill: dense kernels, and FlexAttention with the same mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from photomask.attention.kernels import LayerHeads, prefill_attention
from photomask.attention.kernels.dispatch import choose_sparse_kernel
from photomask.attention.layout import TokenKind
from photomask.attention.patterns import DenseRule, Pattern, is_sink
from photomask.attention.schedule import build_schedule
from prefill.gate import rows_of_mask
from prefill.setting import Layer, Prompt

Call = Callable[[], Tensor]
"""Computes [1, H, L, D]."""
BLOCK = 128
"""Queries and keys of a block of FlexAttention's mask."""
ROWS_AT_ONCE = 1024
"""Rows of the mask that are written out while its blocks are sorted."""


@dataclass(frozen=True)
class Dense:
    """A kernel of causal attention.

    Attributes:
        name: in rows.
        package: whose version counts.
        make: prepares a call for a layer; fails where the kernel does not run.
    """

    name: str
    package: str
    make: Callable[[Layer, Prompt], Call]


def make_flash_attention_4(layer: Layer, prompt: Prompt) -> Call:
    """Prepares FlashAttention-4, tensors in the order it likes."""
    from flash_attn.cute.interface import flash_attn_func  # optional, and slow

    tensors = [x.transpose(1, 2).contiguous() for x in (layer.query, layer.key, layer.value)]

    def call() -> Tensor:
        found = flash_attn_func(*tensors, causal=True)
        output = found[0] if isinstance(found, tuple) else found
        return output.transpose(1, 2)

    return call


def make_sdpa(backend: SDPBackend | None) -> Callable[[Layer, Prompt], Call]:
    """Returns what prepares a back end of PyTorch's attention; None for what it chooses."""

    def make(layer: Layer, prompt: Prompt) -> Call:
        def call() -> Tensor:
            return scaled_dot_product_attention(
                layer.query, layer.key, layer.value, is_causal=True, enable_gqa=True
            )

        def call_backend() -> Tensor:
            with sdpa_kernel(backend):
                return call()

        return call if backend is None else call_backend

    return make


def make_triton(layer: Layer, prompt: Prompt) -> Call:
    """Prepares our Triton kernel with every head dense and causal."""
    return make_ours(layer, prompt, [Pattern.DENSE] * layer.shape.heads, DenseRule(), "triton")


def make_ours(
    layer: Layer,
    prompt: Prompt,
    patterns: Sequence[Pattern],
    rule: DenseRule,
    executor: Any = "auto",
) -> Call:
    """Prepares sparse prefill: schedule and heads are made once, the call runs a layer."""
    schedule = build_schedule(prompt.layout, prompt.sinks, rule)
    heads = LayerHeads.of(patterns, layer.shape.key_heads, layer.device)
    tensors, scale = (layer.query, layer.key, layer.value), layer.shape.scale
    return lambda: prefill_attention(*tensors, schedule, heads, scale, executor=executor)


def make_sparse_alone(layer: Layer, prompt: Prompt, patterns: Sequence[Pattern]) -> Call:
    """Prepares the sparse kernel on the heads that are not dense; other heads are not computed."""
    schedule = build_schedule(prompt.layout, prompt.sinks, prompt.rule)
    codes = LayerHeads.of(patterns, layer.shape.key_heads, layer.device).codes
    sparse = [head for head, pattern in enumerate(patterns) if pattern is not Pattern.DENSE]
    heads = torch.tensor(sparse, dtype=torch.int32, device=layer.device)
    output = torch.zeros_like(layer.query)
    tensors, scale = (layer.query, layer.key, layer.value), layer.shape.scale

    kernel = choose_sparse_kernel(*tensors, schedule)

    def call() -> Tensor:
        kernel(*tensors, schedule, codes, heads, scale, output)
        return output

    return call


DENSE = {
    "fa4": Dense("FlashAttention-4 dense", "flash-attn-4", make_flash_attention_4),
    "cudnn": Dense("cuDNN dense (SDPA)", "torch", make_sdpa(SDPBackend.CUDNN_ATTENTION)),
    "fa2": Dense("FlashAttention-2 dense (SDPA)", "torch", make_sdpa(SDPBackend.FLASH_ATTENTION)),
    "triton": Dense("Triton dense", "photomask", make_triton),
    "sdpa": Dense("SDPA dense", "torch", make_sdpa(None)),
}
FLEX = {
    "flex": ("FlexAttention", None),
    "flex-flash": ("FlexAttention on FlashAttention-4", {"BACKEND": "FLASH"}),
}
"""Names in rows, and options of the kernel."""


def make_flex(
    layer: Layer, prompt: Prompt, patterns: Sequence[Pattern], options: dict[str, Any] | None
) -> Call:
    """Prepares FlexAttention with the mask of every head; its first call compiles."""
    from torch.nn.attention.flex_attention import flex_attention  # slow

    if layer.device.type != "cuda":
        raise RuntimeError("needs a CUDA device")
    mask = make_block_mask(prompt, patterns, BLOCK)
    compiled = torch.compile(flex_attention, dynamic=False)
    tensors = (layer.query, layer.key, layer.value)
    return lambda: compiled(*tensors, block_mask=mask, enable_gqa=True, kernel_options=options)


def make_block_mask(prompt: Prompt, patterns: Sequence[Pattern], size: int) -> Any:
    """Builds the `BlockMask` of a plan block by block.

    `create_block_mask` writes out the mask of every head, which no memory holds at these lengths.
    """
    from torch.nn.attention.flex_attention import BlockMask  # slow

    lists = [list_blocks(prompt, pattern, size) for pattern in Pattern]
    heads = torch.tensor(patterns, device=prompt.layout.device)
    tensors = (torch.stack(column)[heads][None] for column in zip(*lists, strict=True))
    length = (prompt.layout.tokens, prompt.layout.tokens)
    return BlockMask.from_kv_blocks(
        *tensors, BLOCK_SIZE=size, mask_mod=make_mask_function(prompt, patterns), seq_lengths=length
    )


def list_blocks(
    prompt: Prompt, pattern: Pattern, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lists the blocks of keys that each block of queries sees in part, and those it sees whole.

    Returns:
        int32 [N] and int32 [N, N]: how many are seen in part, and first in each row which; then
        the same for those that every query sees whole.
    """
    layout = prompt.layout
    if layout.tokens % size:
        raise ValueError(f"{layout.tokens} tokens are not a multiple of {size}")
    blocks = layout.tokens // size
    some, whole = [], []
    step = max(ROWS_AT_ONCE // size, 1) * size
    for rows in torch.arange(layout.tokens, device=layout.device).split(step):
        seen = rows_of_mask(prompt, pattern, rows).view(-1, size, blocks, size)
        some.append(seen.any(3).any(1))
        whole.append(seen.all(3).all(1))
    full = torch.cat(whole)
    return *_listed(torch.cat(some) & ~full), *_listed(full)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.int()


def make_mask_function(prompt: Prompt, patterns: Sequence[Pattern]) -> Callable[..., Tensor]:
    """Writes the patterns of all heads as a `mask_mod`: comparisons of numbers in flat tables.

    That all sinks are delimiters, so that a sink before a query stands before its image, is
    checked.
    """
    layout, device = prompt.layout, prompt.layout.device
    kind = layout.kind[0]
    image = layout.image[0]
    offset = layout.offset[0]
    in_image, sink = kind == TokenKind.IMAGE, is_sink(layout, prompt.sinks)[0]
    if bool((sink & in_image).any()):
        raise ValueError("a token of an image is a sink")
    step = prompt.sinks.diagonal_block
    block = image * (layout.tokens // step + 1) + torch.where(in_image, offset, 0) // step
    own = torch.where(in_image, image, -1)
    owner = torch.where(in_image | (kind == TokenKind.START), image, -2)
    own_block = torch.where(in_image, block, -1).int()
    block_of = torch.where(in_image, block, -2).int()
    mark = (sink.int() + 2 * (kind == TokenKind.TEXT)).int()
    codes = torch.tensor(patterns, dtype=torch.int32, device=device)
    bidirectional = prompt.rule.bidirectional

    def mask_mod(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        code = codes[head]
        mine = own[row]
        marked = mark[key]
        near = ((code >= 1) & (mine == owner[key])) | (
            (code == 0) & (own_block[row] == block_of[key])
        )
        far = (mine < 0) | (code == 3) | (marked == 2)
        far = far | (((code == 0) | (code == 2)) & (marked == 1))
        if bidirectional:
            return near | ((row >= key) & far)
        return (row >= key) & (near | far)

    return mask_mod

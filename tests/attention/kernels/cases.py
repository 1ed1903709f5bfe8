"""Random attention problems, and how far from float64 an executor may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.attention.kernels import LayerHeads, reference_attention
from photomask.attention.layout import PromptLayout
from photomask.attention.patterns import DenseRule, Pattern, SinkRule
from photomask.attention.schedule import Schedule, build_schedule

ALL = [Pattern.DENSE, Pattern.SINK, Pattern.INTRA_IMAGE, Pattern.INTRA_IMAGE_SINK]


@dataclass(frozen=True)
class Case:
    """One layer of one batch; `expected` is what float64 gives."""

    query: Tensor
    key: Tensor
    value: Tensor
    schedule: Schedule
    heads: LayerHeads
    scale: float
    expected: Tensor
    eager: Tensor

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Schedule, LayerHeads, float]:
        """What `prefill_attention` is called with."""
        return self.query, self.key, self.value, self.schedule, self.heads, self.scale


def make_case(
    layout: PromptLayout,
    *,
    patterns: Sequence[Pattern] = ALL,
    group: int = 1,
    head_size: int = 64,
    dtype: torch.dtype = torch.float32,
    sinks: SinkRule = SinkRule(leading=3, per_image=1, diagonal_block=20),  # noqa: B008
    rule: DenseRule = DenseRule(),  # noqa: B008
    query_start: int = 0,
    tile_rows: int = 32,
    spare_keys: int = 0,
    device: str = "cpu",
) -> Case:
    """Draws tensors. Keys and values of padding, and those behind the layout, are NaN."""
    heads, length = len(patterns), layout.tokens
    shape = (layout.batch, heads // group, length + spare_keys, head_size)
    query = torch.randn(layout.batch, heads, length - query_start, head_size).to(dtype)
    key, value = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    scale = head_size**-0.5

    def reference(kind: torch.dtype) -> Tensor:
        known = slice(0, length)
        tensors = (query, key[:, :, known], value[:, :, known])
        tensors = (each.to(kind) for each in tensors)
        return reference_attention(*tensors, layout, patterns, sinks, rule, scale)

    expected, eager = reference(torch.float64), reference(dtype)
    padding = torch.ones(layout.batch, length + spare_keys, dtype=torch.bool)
    padding[:, :length] = layout.kind == 0
    for tensor in (key, value):
        tensor.masked_fill_(padding[:, None, :, None], torch.nan)
    schedule = build_schedule(move(layout, device), sinks, rule, query_start, tile_rows=tile_rows)
    numbers = LayerHeads.of(patterns, heads // group, device)
    query, key, value = (each.to(device) for each in (query, key, value))
    return Case(query, key, value, schedule, numbers, scale, expected, eager)


def run_sparse(case: Case, kernel: Callable[..., None], heads: Tensor | None = None) -> Tensor:
    """Runs a sparse kernel, on all heads or on some, into memory that holds NaN."""
    query, key, value, schedule, layer, scale = case.arguments
    output = torch.full_like(query, torch.nan)
    chosen = layer.every if heads is None else heads
    kernel(query, key, value, schedule, layer.codes, chosen, scale, output)
    return output


def move(layout: PromptLayout, device: str) -> PromptLayout:
    """Returns a layout on another device."""
    names = (field.name for field in dataclasses.fields(layout))
    return PromptLayout(*(getattr(layout, name).to(device) for name in names))


def assert_close(case: Case, output: Tensor) -> None:
    """Fails unless the error is at most twice that of eager attention in the same precision."""
    assert output.dtype == case.query.dtype
    assert output.shape == case.query.shape
    size = case.expected.norm()
    allowed = 2 * (case.eager.double() - case.expected).norm()
    band = torch.finfo(case.query.dtype).eps * size
    error = (output.cpu().double() - case.expected).norm()
    assert error <= allowed + band, f"{error:.2e} > {allowed:.2e} + {band:.2e} of {size:.2e}"

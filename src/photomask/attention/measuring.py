"""Measures what each head of a layer attends to and what each pattern would lose.

One dense pass is enough. The keys that a dense head sees from an image row fall into six classes,
and every pattern keeps some of the classes as a whole:

| class | sink | intra-image | intra-image and sink |
|---|---|---|---|
| text | kept | kept | kept |
| its image's start delimiter | kept | kept | kept |
| other sinks before its image | kept | | kept |
| its diagonal block | kept | kept | kept |
| the rest of its image | | kept | kept |
| all else: other images | | | |

Each class `c` of a row has its own log-sum-exp `z_c` and its own softmax output `o_c`. A set `S` of
classes then has

    z_S = log sum_c exp(z_c)        o_S = sum_c exp(z_c - z_S) o_c

The attention mass that a pattern loses is `m = exp(z_lost - z_all)`. Its renormalised output
differs from the dense output by `m (o_kept - o_lost)`, which is exactly zero if no key is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from photomask.attention.patterns import DenseRule, Pattern
from photomask.attention.sampling import RowBlock, SampledRows
from photomask.errors import DataError

SPARSE = tuple(pattern for pattern in Pattern if pattern is not Pattern.DENSE)
"""The patterns that are measured, in the order of every last axis `[3]`."""

MASSES = ("sinks", "text", "own image", "other images")
"""The classes that are reported, in the order of the last axis `[4]` of a mass."""

BLOCK_ELEMENTS = 2**26
"""The largest number of scores in memory at a time, unless a single row has more."""

BLOCK_ROWS = 64
"""The largest number of rows that are measured at a time. More rows compute more scores in vain,
and fewer rows take more steps."""

TAIL = 0.05
"""The share of the rows that keep less mass than the tail recall."""


class LayerMeasurement(NamedTuple):
    """The measurements of the heads of one layer on one prompt.

    All tensors are float32 on the device of the keys. Sums and means are taken over the sampled
    image rows.

    Attributes:
        mass: [H, 4] the mean attention mass on each of `MASSES`; the four add up to 1. The start
            delimiter of the row's own image counts as a sink.
        recall: [H, 3] the mean attention mass that each of `SPARSE` keeps.
        tail_recall: [H, 3] the mass that each of `SPARSE` keeps at least on all but 5 % of the
            rows.
        error: [H, 3] the sum of `|o_pattern - o_dense|²`, where the outputs are renormalised.
        norm: [H] the sum of `|o_dense|²`.
        projected_error: [H, 3] the sum of `|W_h (o_pattern - o_dense)|²`, where `W_h` are the
            head's columns of the output projection. This error reaches the residual stream.
        projected_norm: [H] the sum of `|W_h o_dense|²`.
        layer_norm: [] the sum of `|sum_h W_h o_dense|²`, for the layer's whole attention output.
    """

    mass: Tensor
    recall: Tensor
    tail_recall: Tensor
    error: Tensor
    norm: Tensor
    projected_error: Tensor
    projected_norm: Tensor
    layer_norm: Tensor


@dataclass(frozen=True)
class OutputProjection:
    """The output projection of a layer, head by head.

    Attributes:
        weight: the weight of the layer, [hidden, H * D].
        gram: float32 [H, D, D], `W_hᵀ W_h`, so that `|W_h x|² = xᵀ gram x`.
    """

    weight: Tensor
    gram: Tensor

    @classmethod
    def of(cls, weight: Tensor, heads: int) -> OutputProjection:
        """Splits a projection by heads.

        Raises:
            DataError: the weight is not a float matrix with the same number of columns per head.
        """
        if weight.ndim != 2 or weight.shape[1] % heads or not weight.is_floating_point():
            raise DataError(
                f"an output projection must be a float matrix whose columns {heads} heads share "
                f"evenly, got {weight.dtype} {list(weight.shape)}; calibrate the model before it "
                "is quantized"
            )
        weight = weight.detach()
        columns = weight.float().reshape(weight.shape[0], heads, -1).transpose(0, 1)
        return cls(weight, columns.transpose(1, 2) @ columns)


class _Partials(NamedTuple):
    """The softmax over some of the keys, for many rows.

    Attributes:
        lse: float32 [..., R], the log-sum-exp of the scores; -inf if a row sees none of the keys.
        output: float32 [..., R, D], the output; zero if a row sees none of the keys.
    """

    lse: Tensor
    output: Tensor

    def join(self, other: _Partials) -> _Partials:
        """Returns the softmax over the keys of both together."""
        share = (self.lse - other.lse).sigmoid().nan_to_num(0.0)
        output = torch.lerp(other.output, self.output, share.unsqueeze(-1))
        return _Partials(torch.logaddexp(self.lse, other.lse), output)


@torch.no_grad()
def measure(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: SampledRows,
    rule: DenseRule,
    scale: float,
    projection: OutputProjection,
) -> LayerMeasurement:
    """Measures one layer on one prompt. The memory grows only linearly with the tokens.

    Args:
        query: the queries, [1, H, L, D].
        key: the keys, [1, G, L, D]. H is a multiple of G, and head h reads key head h // (H / G).
        value: the values, [1, G, L, D].
        rows: the sampled rows of the prompt, at least one.
        rule: the rule that says what a dense head of the layer sees.
        scale: the factor of the scores.
        projection: the output projection of the layer.

    Returns:
        The measurements, accumulated in float32.

    Raises:
        DataError: there is no row to measure, because the prompt has fewer than two images.
    """
    if not rows.count:
        raise DataError(
            "the prompt has no image row behind an earlier image, so there is nothing to measure; "
            "expected two images"
        )
    groups = key.shape[1]
    group = query.shape[1] // key.shape[1]
    size = query.shape[3]
    query = query[0].index_select(1, rows.rows).float() * scale
    query = query.reshape(groups, group, rows.count, size)
    keys = _KeyClasses(key[0].float(), value[0].float(), rows)
    blocks = []
    start, step = 0, BLOCK_ELEMENTS // (groups * group * int(rows.columns[2].max()))
    for block in rows.blocks(min(BLOCK_ROWS, max(1, step))):
        stop = start + len(block.rows)
        blocks.append(keys.attend(query[:, :, start:stop], block, rule))
        start = stop
    classes = [
        _Partials(
            torch.cat([part.lse for part in parts], 2).flatten(0, 1),
            torch.cat([part.output for part in parts], 2).flatten(0, 1),
        )
        for parts in zip(*blocks, strict=True)
    ]
    return _summarise(classes, projection)


class _KeyClasses:
    """The keys and values of a layer, gathered by class once. Row blocks read slices of them."""

    def __init__(self, key: Tensor, value: Tensor, rows: SampledRows):
        self.key, self.value = key, value
        self.gathered = [
            (
                members,
                key.index_select(1, members.on_device),
                value.index_select(1, members.on_device),
            )
            for members in (rows.text, rows.sinks, rows.others)
        ]

    def attend(self, query: Tensor, block: RowBlock, rule: DenseRule) -> list[_Partials]:
        """Computes the softmax over the keys of every class.

        Args:
            query: the scaled queries, [G, H / G, R, D].
            block: the R rows.
            rule: the rule that says what a dense head sees.

        Returns:
            The softmax over text, start delimiter, other sinks, diagonal block, rest of the image
            and other images, in this order.
        """
        earlier = []
        for number, (members, key, value) in enumerate(self.gathered):
            reach, unsettled = block.reach(members, rule), block.unsettled(members, rule)
            scores = _scores(query, key[:, reach])
            seen = block.before(members.on_device[unsettled], rule, without_start=number == 1)
            scores[..., unsettled.start - reach.start :].masked_fill_(~seen, -torch.inf)
            earlier.append(_softmax(scores, value[:, reach]))
        place = (block.first - 1).clamp(min=0)
        start = (query * self.key[:, None, place]).sum(-1)
        start = start.masked_fill(~block.sees_start(rule), -torch.inf)
        delimiter = _Partials(start, self.value[:, None, place].expand_as(query))
        span = slice(block.earliest, block.end)
        scores = _scores(query, self.key[:, span])
        own = [
            _softmax(scores.masked_fill(~seen, -torch.inf), self.value[:, span])
            for seen in block.own_image(rule)
        ]
        text, sinks, others = earlier
        return [text, delimiter, sinks, *own, others]


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """Returns the products of queries [G, H / G, R, D] and keys [G, K, D]: [G, H / G, R, K]."""
    groups, group, rows, size = query.shape
    flat = query.reshape(groups, group * rows, size) @ key.transpose(1, 2)
    return flat.view(groups, group, rows, -1)


def _softmax(scores: Tensor, value: Tensor) -> _Partials:
    """Computes the softmax over some keys. It changes the scores in place.

    Args:
        scores: the scores, [G, H / G, R, K]; -inf for keys that a row does not see.
        value: the values, [G, K, D].
    """
    groups, group, rows, keys = scores.shape
    if not keys:
        empty = scores.new_full((groups, group, rows), -torch.inf)
        return _Partials(empty, scores.new_zeros(groups, group, rows, value.shape[2]))
    top = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    output = (weights.view(groups, group * rows, keys) @ value).view(groups, group, rows, -1)
    output /= total.clamp(min=torch.finfo(total.dtype).tiny)
    return _Partials((top + total.log()).squeeze(-1), output)


def _summarise(classes: list[_Partials], projection: OutputProjection) -> LayerMeasurement:
    """Returns the measurements from the softmaxes over the classes, for the rows [H, R]."""
    text, start, sinks, diagonal, rest, others = classes
    always = text.join(start).join(diagonal)
    both = always.join(sinks).join(rest)
    dense = both.join(others)
    kept_and_lost = {
        Pattern.SINK: (always.join(sinks), rest.join(others)),
        Pattern.INTRA_IMAGE: (always.join(rest), sinks.join(others)),
        Pattern.INTRA_IMAGE_SINK: (both, others),
    }
    recalls = []
    errors = []
    projected = []
    for kept, lost in (kept_and_lost[pattern] for pattern in SPARSE):
        share = (lost.lse - dense.lse).exp().clamp(max=1)
        difference = (kept.output - lost.output).mul_(share.unsqueeze(-1))
        recalls.append(1 - share)
        errors.append(difference.square().sum((1, 2)))
        projected.append(_projected(difference, projection))
    recall = torch.stack(recalls, 1)  # [H, 3, R]
    share = [(part.lse - dense.lse).exp().mean(1) for part in classes]
    mass = [share[1] + share[2], share[0], share[3] + share[4], share[5]]  # order of MASSES
    joined = dense.output.transpose(0, 1).flatten(1) @ projection.weight.float().T
    return LayerMeasurement(
        mass=torch.stack(mass, 1),
        recall=recall.mean(2),
        tail_recall=recall.quantile(TAIL, dim=2),
        error=torch.stack(errors, 1),
        norm=dense.output.square().sum((1, 2)),
        projected_error=torch.stack(projected, 1),
        projected_norm=_projected(dense.output, projection),
        layer_norm=joined.square().sum(),
    )


def _projected(vectors: Tensor, projection: OutputProjection) -> Tensor:
    """Returns the sum of `|W_h x|²` over the rows of each head: [H, R, D] to [H]."""
    return ((vectors @ projection.gram) * vectors).sum((1, 2)).clamp(min=0)

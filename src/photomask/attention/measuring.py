"""What each head of one layer attends to, and what each pattern would lose, from one dense pass.

The keys that a dense head sees from an image row fall into six classes, and every pattern keeps
some classes whole:

| class | sink | intra-image | intra-image and sink |
|---|---|---|---|
| text | kept | kept | kept |
| its image's start delimiter | kept | kept | kept |
| other sinks before its image | kept | | kept |
| its diagonal block | kept | kept | kept |
| the rest of its image | | kept | kept |
| all else: other images | | | |

So one pass over the keys, class by class, is enough for all patterns. A class `c` of a row has a
log-sum-exp `z_c` and a softmax output `o_c` of its own; a set `S` of classes then has

    z_S = log sum_c exp(z_c)        o_S = sum_c exp(z_c - z_S) o_c

The attention mass that a pattern loses is `m = exp(z_lost - z_all)`, and its renormalised output
differs from the dense one by `m (o_kept - o_lost)`, exactly zero where no key is lost.
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
"""The classes that are reported, in the order of every last axis `[4]`."""

BLOCK_ELEMENTS = 2**26
"""Scores in memory at a time, at most."""

BLOCK_ROWS = 64
"""Rows that are measured at a time, at most: more see more keys in vain, fewer take more steps."""

TAIL = 0.05
"""The share of the rows that keep less than the tail recall."""


class LayerMeasurement(NamedTuple):
    """What one layer's heads do with one prompt; float32 on the device of the keys.

    Sums and means are over the sampled image rows.

    Attributes:
        mass: [H, 4] mean attention mass on each of `MASSES`; sum to 1. The image's own start
            delimiter counts as a sink.
        recall: [H, 3] mean attention mass that each of `SPARSE` keeps.
        tail_recall: [H, 3] the mass that all but 5 % of the rows keep at least.
        error: [H, 3] sum of `|o_pattern - o_dense|²`, outputs renormalised.
        norm: [H] sum of `|o_dense|²`.
        projected_error: [H, 3] sum of `|W_h (o_pattern - o_dense)|²`, `W_h` the head's columns of
            the output projection: what reaches the residual stream.
        projected_norm: [H] sum of `|W_h o_dense|²`.
        layer_norm: [] sum of `|sum_h W_h o_dense|²`, the layer's whole attention output.
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
    """A layer's output projection, head by head.

    Attributes:
        weight: [hidden, H * D], as the layer holds it.
        gram: float32 [H, D, D], `W_hᵀ W_h`, so that `|W_h x|² = xᵀ gram x`.
    """

    weight: Tensor
    gram: Tensor

    @classmethod
    def of(cls, weight: Tensor, heads: int) -> OutputProjection:
        """Splits a projection by heads.

        Raises:
            DataError: the weight is not a float matrix with the same number of columns a head.
        """
        if weight.ndim != 2 or weight.shape[1] % heads or not weight.is_floating_point():
            raise DataError(
                f"an output projection must be a float matrix whose columns {heads} heads share, "
                f"got {weight.dtype} {list(weight.shape)}; load the model unquantized to calibrate"
            )
        weight = weight.detach()
        columns = weight.float().reshape(weight.shape[0], heads, -1).transpose(0, 1)
        return cls(weight, columns.transpose(1, 2) @ columns)


class _Partials(NamedTuple):
    """A softmax over some of the keys, for many rows.

    Attributes:
        lse: float32 [..., R], log-sum-exp of the scores; -inf where a row sees none of the keys.
        output: float32 [..., R, D]; zero there.
    """

    lse: Tensor
    output: Tensor

    def join(self, other: _Partials) -> _Partials:
        """Returns the softmax over the keys of both."""
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
    """Measures one layer on one prompt, in O(tokens) memory, without a matrix of tokens squared.

    Args:
        query: [1, H, L, D].
        key: [1, G, L, D]; H is a multiple of G, and head h reads the keys of h // (H / G).
        value: [1, G, L, D].
        rows: of the prompt; at least one.
        rule: what a dense head of the layer sees.
        scale: factor of the scores.
        projection: of the layer.

    Returns:
        What `LayerMeasurement` says, accumulated in float32.

    Raises:
        DataError: no row is measured: the prompt has fewer than two images.
    """
    if not rows.count:
        raise DataError("no image row with an earlier image to measure; expected two images")
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
    """A layer's keys and values, gathered by class once, so that blocks of rows read slices."""

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
        """Computes the softmax over every class.

        Args:
            query: [G, H / G, R, D], scaled.
            block: the R rows.
            rule: what a dense head sees.

        Returns:
            Text, start delimiter, other sinks, diagonal block, rest of the image, other images.
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
    """Multiplies [G, H / G, R, D] by [G, K, D]: [G, H / G, R, K]."""
    groups, group, rows, size = query.shape
    flat = query.reshape(groups, group * rows, size) @ key.transpose(1, 2)
    return flat.view(groups, group, rows, -1)


def _softmax(scores: Tensor, value: Tensor) -> _Partials:
    """Computes the softmax over some keys; changes the scores.

    Args:
        scores: [G, H / G, R, K]; -inf for keys that a row does not see.
        value: [G, K, D].
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
    """Turns the classes of all rows, [H, R] each, into what heads and patterns are told by."""
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
    """Sums `|W_h x|²` over a head's rows: [H, R, D] to [H]."""
    return ((vectors @ projection.gram) * vectors).sum((1, 2)).clamp(min=0)

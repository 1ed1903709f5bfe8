"""Measuring a layer equals attention with the masks written out."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.attention.layouts import batch, dense_rules, prompts, regular, sink_rules
from torch import Tensor

from photomask.attention import measuring
from photomask.attention.kernels.reference import reference_attention
from photomask.attention.layout import PromptLayout, TokenKind
from photomask.attention.measuring import SPARSE, LayerMeasurement, OutputProjection, measure
from photomask.attention.patterns import DenseRule, Pattern, SinkRule, is_sink, visible
from photomask.attention.sampling import SampledRows
from photomask.errors import DataError

HEADS = 4
KV_HEADS = 2
SIZE = 8
HIDDEN = 24


class Layer:
    """Random queries, keys, values and output projection of a layer."""

    def __init__(self, tokens: int, sharpness: float = 1.0, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        self.query = torch.randn(1, HEADS, tokens, SIZE, generator=random) * sharpness
        self.key = torch.randn(1, KV_HEADS, tokens, SIZE, generator=random)
        self.value = torch.randn(1, KV_HEADS, tokens, SIZE, generator=random)
        self.weight = torch.randn(HIDDEN, HEADS * SIZE, generator=random)
        self.scale = SIZE**-0.5

    def measure(
        self, layout: PromptLayout, sinks: SinkRule, rule: DenseRule, limit: int = 10**6
    ) -> LayerMeasurement:
        rows = SampledRows.of(layout, sinks, limit)
        projection = OutputProjection.of(self.weight, HEADS)
        return measure(self.query, self.key, self.value, rows, rule, self.scale, projection)


def expected(
    layer: Layer, layout: PromptLayout, sinks: SinkRule, rule: DenseRule, rows: Tensor
) -> LayerMeasurement:
    """The same by literal masks, in float64."""
    query, key, value = (x.double() for x in (layer.query, layer.key, layer.value))
    repeated = key.repeat_interleave(HEADS // KV_HEADS, 1)
    scores = (query @ repeated.transpose(2, 3) * layer.scale)[0]
    dense_mask = visible(layout, Pattern.DENSE, sinks, rule)[0]
    weights = scores.masked_fill(~dense_mask, -torch.inf).softmax(-1)[:, rows]  # [H, R, L]
    outputs = {
        pattern: reference_attention(
            query, key, value, layout, [pattern] * HEADS, sinks, rule, layer.scale
        )[0][:, rows]
        for pattern in Pattern
    }
    dense = outputs[Pattern.DENSE]
    kept = torch.stack(
        [(weights * visible(layout, p, sinks, rule)[0, rows]).sum(-1) for p in SPARSE], 1
    )
    columns = layer.weight.double().reshape(HIDDEN, HEADS, SIZE)
    project = lambda x: torch.einsum("nhd,hrd->hrn", columns, x)  # noqa: E731
    differences = [outputs[pattern] - dense for pattern in SPARSE]
    return LayerMeasurement(
        mass=_masses(weights, layout, sinks, rows),
        recall=kept.mean(2),
        tail_recall=kept.quantile(0.05, dim=2),
        error=torch.stack([x.square().sum((1, 2)) for x in differences], 1),
        norm=dense.square().sum((1, 2)),
        projected_error=torch.stack([project(x).square().sum((1, 2)) for x in differences], 1),
        projected_norm=project(dense).square().sum((1, 2)),
        layer_norm=project(dense).sum(0).square().sum(),
    )


def _masses(weights: Tensor, layout: PromptLayout, sinks: SinkRule, rows: Tensor) -> Tensor:
    """Mean weights on sinks before the row's image, text, own image, and all other keys."""
    kind, image = layout.kind[0], layout.image[0]
    inside = kind == TokenKind.IMAGE
    own = inside & (image == image[rows][:, None])
    text = (kind == TokenKind.TEXT).expand_as(own)
    sink = is_sink(layout, sinks)[0] & ~own
    other = ~own & ~text & ~sink
    return torch.stack([(weights * x).sum(-1).mean(1) for x in (sink, text, own, other)], 1)


def rows_with_earlier_image(layout: PromptLayout) -> Tensor:
    return ((layout.kind[0] == TokenKind.IMAGE) & (layout.image[0] >= 1)).nonzero()[:, 0]


def assert_equal(found: LayerMeasurement, wanted: LayerMeasurement) -> None:
    for name, a, b in zip(found._fields, found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: n + m)


@settings(max_examples=60)
@given(
    prompt=prompts(),
    left=st.booleans(),
    padding=st.integers(0, 3),
    sinks=sink_rules(),
    rule=dense_rules(),
    sharpness=st.sampled_from([0.3, 1.0, 6.0]),
    block=st.sampled_from([5, 64]),
)
def test_measuring_equals_attention_by_literal_masks(
    prompt, left, padding, sinks, rule, sharpness, block
):
    layout = batch([prompt], left=left, extra=padding)
    rows = rows_with_earlier_image(layout)
    assume(len(rows))
    layer = Layer(layout.tokens, sharpness)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "BLOCK_ROWS", block)
        found = layer.measure(layout, sinks, rule)
    assert_equal(found, expected(layer, layout, sinks, rule, rows))


def test_scores_that_differ_beyond_the_range_of_exp_lose_nothing():
    layout, sinks = regular(3, 20, 3), SinkRule(diagonal_block=8)
    layer = Layer(layout.tokens, sharpness=120.0)
    found = layer.measure(layout, sinks, DenseRule())
    wanted = expected(layer, layout, sinks, DenseRule(), rows_with_earlier_image(layout))
    torch.testing.assert_close(found.error.double(), wanted.error, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.recall.double(), wanted.recall, rtol=1e-4, atol=1e-4)


def test_sampled_rows_are_evenly_spaced_and_measured_alike():
    layout, sinks = regular(5, 40, 3), SinkRule()
    rows = SampledRows.of(layout, sinks, limit=20)
    wanted = rows_with_earlier_image(layout)[4::8]
    assert rows.rows.tolist() == wanted.tolist()
    layer = Layer(layout.tokens)
    found = layer.measure(layout, sinks, DenseRule(), limit=20)
    assert_equal(found, expected(layer, layout, sinks, DenseRule(), wanted))


def test_what_a_window_already_hides_is_lost_by_no_pattern():
    layout = regular(4, 10, 12)
    found = Layer(layout.tokens).measure(layout, SinkRule(), DenseRule(window=10))
    assert found.error.count_nonzero() == 0
    assert found.projected_error.count_nonzero() == 0
    assert bool((found.recall == 1).all())


def test_masses_sum_to_one():
    layout = regular(6, 12, 2)
    found = Layer(layout.tokens).measure(layout, SinkRule(), DenseRule())
    torch.testing.assert_close(found.mass.sum(1), torch.ones(HEADS))


def test_a_prompt_with_one_image_has_no_row_to_measure():
    layout = regular(1, 12, 2)
    with pytest.raises(DataError, match="expected two images"):
        Layer(layout.tokens).measure(layout, SinkRule(), DenseRule())


def test_a_quantized_output_projection_is_refused():
    with pytest.raises(DataError, match="int8"):
        OutputProjection.of(torch.zeros(8, 8, dtype=torch.int8), 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    layout = regular(4, 30, 3)
    sinks = SinkRule(diagonal_block=8)
    layer = Layer(400)
    tokens = layout.tokens
    layer.query, layer.key, layer.value = (
        x[:, :, :tokens].to(dtype) for x in (layer.query, layer.key, layer.value)
    )
    found = layer.measure(layout, sinks, DenseRule())
    assert all(part.dtype == torch.float32 for part in found)
    rows = rows_with_earlier_image(layout)
    assert_equal(found, expected(layer, layout, sinks, DenseRule(), rows))

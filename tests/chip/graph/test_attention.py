"""Attention as PyTorch and models write it: where the batch is, and what masks hide."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from tests.chip.graph.test_transformers import Function, captured, heads, kinds
from torch import Tensor, nn

from photomask.chip.graph import capture
from photomask.errors import CaptureError, UnsupportedOperatorError

X = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(0))
CAUSAL = torch.ones(6, 6).tril()
MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])


class InOwnOrder(nn.Module):
    """Gives a layer its input with the batch where it wants it, and takes it back."""

    def __init__(self, layer: nn.Module, batch_first: bool):
        super().__init__()
        self.layer, self.batch_first = layer, batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        attends = isinstance(self.layer, nn.MultiheadAttention)
        y = self.layer(x, x, x, need_weights=False)[0] if attends else self.layer(x)
        return y if self.batch_first else y.transpose(0, 1)


@pytest.fixture(autouse=True)
def slow_path():
    """Attention as it trains; the fast path is one operator of the library."""
    torch.manual_seed(0)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True},
        {"dropout": 0.5},
        {"bias": False},
    ],
)
def test_multihead_attention_is_captured_wherever_its_batch_is(batch_first: bool, more: dict):
    layer = nn.MultiheadAttention(16, 4, batch_first=batch_first, **more)
    graph = captured(InOwnOrder(layer, batch_first), X)
    assert (kinds(graph).count("matmul"), kinds(graph).count("softmax")) == (2, 1)


def test_a_constant_that_is_joined_may_differ_between_the_rows_of_a_sample_alone():
    class Joined(nn.Module):
        def __init__(self, *rows: float):
            super().__init__()
            self.rows = torch.tensor(rows).reshape(-1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            heads = x.reshape(len(x) * 4, 5, 4)
            added = self.rows.repeat(len(heads) // len(self.rows), 1, 4)
            return torch.cat([heads, added], dim=1).reshape(len(x), 4, 6, 4)

    x = torch.randn(2, 4, 5, 4)
    assert "concatenate" in kinds(captured(Joined(1.0, 2.0, 3.0, 4.0), x))
    with pytest.raises(UnsupportedOperatorError, match="differs from sample to sample"):
        capture(Joined(*range(8)), x)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_are_captured_wherever_their_batch_is(batch_first: bool, norm_first: bool):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first, norm_first=norm_first)
    graph = captured(InOwnOrder(layer, batch_first), X)
    assert (kinds(graph).count("normalize"), kinds(graph).count("add")) == (2, 2)


def test_a_decoder_layer_reads_two_sequences():
    layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True).eval()
    assert kinds(captured(layer, X, torch.randn(3, 4, 16))).count("softmax") == 2


def test_weights_of_heads_are_averaged_and_their_scale_is_part_of_the_product():
    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x, x, need_weights=True)[1]

    assert "mean" in kinds(captured(Weights(), X))


def test_padding_of_an_encoder_is_an_integer_input():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.layers(x, src_key_padding_mask=mask == 0)

    graph = captured(Padded(), X, MASK)
    assert "tokens" in kinds(graph)


def written_out(mask):
    """Attention in small operators, with something done to its scores."""

    def attend(x: Tensor, *more: Tensor) -> Tensor:
        scores = x @ x.transpose(-2, -1) / math.sqrt(16)
        return torch.softmax(mask(scores, *more), -1) @ x

    return attend


CONSTANT = {
    "filled": lambda s: s.masked_fill(CAUSAL == 0, -math.inf),
    "added": lambda s: s + torch.where(CAUSAL > 0, 0.0, -math.inf),
    "added with a bias": lambda s: s + torch.where(CAUSAL > 0, torch.arange(6.0), -math.inf),
    "chosen": lambda s: torch.where(CAUSAL > 0, s, -1e9),
    "chosen from a tensor": lambda s: torch.where(CAUSAL > 0, s, torch.full_like(s, -1e9)),
    "twice": lambda s: s.masked_fill(CAUSAL == 0, -1e9).masked_fill(CAUSAL.roll(1, 1) > 2, -1e9),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_masks_known_at_capture_are_constants_of_the_softmax(name: str):
    graph = captured(written_out(CONSTANT[name]), X)
    (softmax,) = (node for node in graph.nodes if node.operation.kind == "softmax")
    assert torch.equal(graph.constants[softmax.constants["mask"]], CAUSAL)
    assert kinds(graph).count("add") == ("bias" in name)


GIVEN = {
    "filled": lambda s, m: s.masked_fill(m[:, None] == 0, -1e9),
    "inverted": lambda s, m: s.masked_fill(~m[:, None].bool(), -1e9),
    "chosen": lambda s, m: torch.where(m[:, None] != 0, s, -1e9),
    "added": lambda s, m: s + torch.where(m[:, None] != 0, 0.0, -1e9),
    "computed": lambda s, m: s + (1.0 - m[:, None].float()) * -10000.0,
    "filled zeros": lambda s, m: s + torch.zeros(1, 1, 6).masked_fill(m[:, None] == 0, -1e9),
    "flattened": lambda s, m: s.masked_fill((m == 0).flatten(1)[:, None], -1e9),
    "narrowed": lambda s, m: s.masked_fill((m == 0).narrow(1, 0, 6)[:, None], -1e9),
    "moved": lambda s, m: s.masked_fill((m == 0)[:, :, None].movedim(1, 2), -1e9),
    "and causal": lambda s, m: s.masked_fill(CAUSAL == 0, -1e9).masked_fill(m[:, None] == 0, -1e9),
}


@pytest.mark.parametrize("name", GIVEN)
def test_masks_of_an_integer_input_are_the_softmaxs_second_input(name: str):
    graph = captured(written_out(GIVEN[name]), X, MASK)
    (softmax,) = (node for node in graph.nodes if node.operation.kind == "softmax")
    assert len(softmax.inputs) == 2
    assert ("mask" in softmax.constants) == (name == "and causal")


REFUSED = {
    "compared with 3": (lambda s, m: s.masked_fill(m[:, None] == 3, -1e9), "only where it is 0"),
    "hides where 1": (lambda s, m: s.masked_fill(m[:, None] != 0, -1e9), "only where it is 0"),
    "filled with 0": (lambda s, m: s.masked_fill(m[:, None] == 0, 0.0), "hides nothing"),
    "scaled after": (lambda s, m: s.masked_fill(m[:, None] == 0, -1e9) * 2, "only a softmax"),
    "weighed": (lambda s, m: s * m[:, None], "computes with an integer input"),
    "slope": (lambda s, m: s + (1.0 - m[:, None].float()) * -3.0, "computes with an integer input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_a_softmax_cannot_hold_are_refused_with_their_line(name: str):
    mask, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError, match=reason) as found:
        capture(Function(written_out(mask)), [X, MASK])
    assert re.search(r" at \S+\.py:\d+: ", str(found.value))


KEYS = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(1))
LENGTHS = {
    "causal": lambda q, k: F.scaled_dot_product_attention(q, k, k, is_causal=True),
    "boolean": lambda q, k: F.scaled_dot_product_attention(q, k, k, torch.ones(6, 9).tril(3) > 0),
    "added": lambda q, k: F.scaled_dot_product_attention(q, k, k, torch.arange(54.0).view(6, 9)),
    "per head": lambda q, k: F.scaled_dot_product_attention(
        q, k, k, torch.arange(4.0).view(4, 1, 1) * torch.arange(9.0)
    ),
    "keys alone": lambda q, k: F.scaled_dot_product_attention(q, k, k, torch.arange(9)[None] < 5),
    "grouped": lambda q, k: F.scaled_dot_product_attention(
        q, k[:, :2], k[:, 2:], is_causal=True, enable_gqa=True, scale=0.1
    ),
    "a row that sees nothing": lambda q, k: F.scaled_dot_product_attention(
        q, k, k, torch.ones(6, 9).tril(-1) > 0
    ),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_attention_to_keys_of_another_length(name: str):
    captured(lambda x, k: LENGTHS[name](heads(x), k), torch.randn(3, 6, 32), KEYS)


def test_a_bias_that_is_an_input_is_refused_by_attention():
    model = Function(lambda x, b: F.scaled_dot_product_attention(x, x, x, b))
    with pytest.raises(UnsupportedOperatorError, match="not proven to be 0 or to hide elements"):
        capture(model, [X, torch.randn(3, 6, 6)])


def test_dropout_that_is_always_on_is_refused():
    model = Function(lambda x: F.dropout(x, 0.5, training=True))
    with pytest.raises((UnsupportedOperatorError, CaptureError), match="at random"):
        capture(model, X)


def test_attention_that_always_drops_is_refused():
    model = Function(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3))
    with pytest.raises(UnsupportedOperatorError, match="drops elements at random"):
        capture(model, X)


def test_positions_beyond_the_table_are_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(4, 8)

        def forward(self, ids: Tensor) -> Tensor:
            return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))

    with pytest.raises(CaptureError, match="index out of range"):
        capture(Model().eval(), torch.randint(0, 11, (2, 5)))


def test_tokens_beyond_the_table_are_refused_in_the_example():
    with pytest.raises(CaptureError, match="index out of range"):
        capture(nn.Embedding(11, 8), torch.full((2, 5), 11))

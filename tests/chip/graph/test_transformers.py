"""What transformers are made of becomes few operations, however the model writes it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, Node, capture, simplify
from photomask.chip.graph.float_graph import compute, largest_difference
from photomask.chip.graph.operations import Matmul, Normalize, Softmax, Tokens
from photomask.chip.operators import Softmax as IntegerSoftmax
from photomask.chip.operators.softmax import EXPONENT_BITS, RECIPROCAL_BITS
from photomask.chip.quantized_computation import compute_quantized
from photomask.errors import UnsupportedOperatorError


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor):
        return self.function(*inputs)


def captured(model, *inputs: Tensor) -> FloatGraph:
    """Captures a model, and holds the simplified graph to it with three samples."""
    model = model.eval() if isinstance(model, nn.Module) else Function(model)
    graph = simplify(capture(model, inputs))
    more = [torch.cat([x, x, x])[:3] for x in inputs]
    with torch.no_grad():
        assert largest_difference(graph(*more), [model(*more)]) < 1e-5
    return graph


def kinds(graph: FloatGraph) -> list[str]:
    return [node.operation.kind for node in graph.nodes]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_a_softmax_over_any_data_axis(dim: int):
    graph = captured(lambda x: torch.softmax(x, dim), torch.randn(2, 4, 5))
    assert "softmax" in kinds(graph)


def test_a_softmax_over_the_batch_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="batch axis"):
        capture(Function(lambda x: torch.softmax(x, 0)), torch.randn(2, 4))


def heads(x: Tensor) -> Tensor:
    return x.reshape(len(x), 6, 4, 8).transpose(1, 2)


ATTENTION = {
    "plain": lambda q: F.scaled_dot_product_attention(q, q, q),
    "scaled": lambda q: F.scaled_dot_product_attention(q, q, q, scale=0.3),
    "causal": lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True),
    "boolean": lambda q: F.scaled_dot_product_attention(q, q, q, torch.ones(6, 6).tril() > 0),
    "added": lambda q: F.scaled_dot_product_attention(q, q, q, torch.arange(36.0).view(6, 6)),
    "hidden": lambda q: F.scaled_dot_product_attention(
        q, q, q, torch.full((6, 6), -math.inf).triu(1)
    ),
    "grouped": lambda q: F.scaled_dot_product_attention(q, q[:, :2], q[:, 2:], enable_gqa=True),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_two_products_and_a_softmax(name: str):
    graph = captured(lambda x: ATTENTION[name](heads(x)), torch.randn(2, 6, 32))
    counts = {kind: kinds(graph).count(kind) for kind in ("matmul", "softmax", "add")}
    assert counts == {"matmul": 2, "softmax": 1, "add": int(name == "added")}
    softmax = next(node for node in graph.nodes if isinstance(node.operation, Softmax))
    assert ("mask" in softmax.constants) == (name in ("causal", "boolean", "hidden"))
    scores = next(node.operation for node in graph.nodes if isinstance(node.operation, Matmul))
    assert scores.factor == pytest.approx(0.3 if name == "scaled" else 8**-0.5)


def test_parts_of_a_sample_may_have_masks_of_their_own():
    mask = torch.zeros(3, 1, 4, 4)
    mask[1, :, :, 2:] = -100.0

    def windows(x: Tensor) -> Tensor:
        parts = x.reshape(-1, 1, 4, 8)
        repeated = mask.repeat(len(x), 1, 1, 1)
        return F.scaled_dot_product_attention(parts, parts, parts, repeated).reshape(-1, 12, 8)

    graph = captured(windows, torch.randn(2, 12, 8))
    softmax = next(node for node in graph.nodes if isinstance(node.operation, Softmax))
    assert graph.constants[softmax.constants["mask"]].shape == (3, 1, 4, 4)


def test_a_mask_that_depends_on_the_input_is_refused():
    model = Function(lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.transpose(1, 2)))
    with pytest.raises(UnsupportedOperatorError, match="mask depends on the input"):
        capture(model, torch.randn(2, 4, 8))


def test_queries_keys_and_values_may_be_cut_from_one_tensor_whose_batch_was_moved():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            parts = self.qkv(x).reshape(len(x), 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            query, key, value = parts.unbind(0)
            return F.scaled_dot_product_attention(query, key + parts[1], value)

    assert kinds(captured(Attention(), torch.randn(2, 5, 8))).count("softmax") == 1


class WrittenOut(nn.Module):
    """A root-mean-square norm as language models write it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-4))


NORMS = {
    "layer norm": (nn.LayerNorm(8), True, 1e-5),
    "without a gain": (nn.LayerNorm(8, elementwise_affine=False), True, 1e-5),
    "root mean square": (nn.RMSNorm(8, eps=1e-3), False, 1e-3),
    "written out": (WrittenOut(), False, 1e-4),
    "length 1": (Function(lambda x: F.normalize(x, dim=-1)), False, 1e-24 / 8),
    "length 1, written out": (
        Function(lambda x: x / torch.linalg.vector_norm(x, dim=2, keepdim=True)),
        False,
        0.0,
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_one_operation(name: str):
    model, centred, epsilon = NORMS[name]
    graph = captured(model, torch.randn(2, 5, 8))
    assert kinds(graph) == ["input", "normalize"]
    operation = graph.nodes[-1].operation
    assert isinstance(operation, Normalize)
    assert operation.centred is centred
    assert operation.epsilon == pytest.approx(epsilon, rel=1e-6)


def test_what_only_looks_like_a_norm_is_none():
    graph = captured(
        lambda x: x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1), torch.randn(2, 5, 8)
    )
    assert "normalize" not in kinds(graph)


def test_a_vector_of_length_1_has_the_gain_that_a_mean_of_squares_lacks():
    graph = captured(lambda x: F.normalize(x, dim=-1), torch.randn(2, 5, 8))
    gain = graph.constants[graph.nodes[-1].constants["gain"]]
    assert torch.equal(gain, torch.ones(8) / math.sqrt(8))


def test_lengths_along_another_axis_are_functions_and_products():
    graph = captured(lambda x: F.normalize(x, dim=1), torch.randn(2, 5, 8))
    assert "normalize" not in kinds(graph)
    lengths = captured(lambda x: torch.linalg.vector_norm(x, dim=(1, 2)), torch.randn(2, 5, 8))
    assert kinds(lengths)[-1] == "reshape"


def test_lengths_of_another_order_are_refused():
    model = Function(lambda x: torch.linalg.vector_norm(x, ord=1, dim=-1))
    with pytest.raises(UnsupportedOperatorError, match=r"norm of order 1.*Euclidean"):
        capture(model, torch.randn(2, 5, 8))


def test_a_norm_over_two_axes_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="several axes"):
        capture(nn.LayerNorm((5, 8)), torch.randn(2, 5, 8))


def test_factors_and_scales_of_the_last_axis_fold_into_layers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gamma = nn.Linear(8, 8), nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * 0.25 * self.gamma + 1.5

    assert kinds(captured(Scaled(), torch.randn(2, 5, 8))) == ["input", "linear"]


def test_functions_written_out_are_one_function():
    def gelu(x: Tensor) -> Tensor:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1.0 + torch.tanh(inner))

    graph = captured(lambda x: gelu(x) + x * torch.sigmoid(x), torch.randn(2, 5, 8))
    assert len(graph.nodes) == 2


def test_tokens_choose_rows():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)

        def forward(self, ids: Tensor) -> Tensor:
            return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))

    graph = captured(Model(), torch.randint(0, 11, (2, 5)))
    assert isinstance(graph.nodes[0].operation, Tokens)
    assert kinds(graph) == ["tokens", "embedding", "constant", "add"]


@pytest.mark.parametrize("compute", [lambda ids: ids.float() * 0.5, lambda ids: ids + 1.0])
def test_computing_with_tokens_is_refused(compute):
    with pytest.raises(UnsupportedOperatorError, match="computes with an integer input"):
        capture(Function(compute), torch.randint(0, 11, (2, 5)))


def test_tokens_may_be_cut_and_reordered():
    table = nn.Embedding(11, 8)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = table

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids.reshape(len(ids), 3, 4)[:, :2].transpose(1, 2))

    graph = captured(Model(), torch.randint(0, 11, (2, 12)))
    assert kinds(graph) == ["tokens", "reshape", "slice", "permute", "embedding"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=60),
    st.floats(0.001, 2.0),
    st.sampled_from(["none", "constant", "input", "both"]),
    st.randoms(use_true_random=False),
)
def test_a_quantized_softmax_is_that_of_the_integer_operator(codes, scale, masks, random):
    count = min(256, math.ceil((EXPONENT_BITS + 1) * math.log(2) / scale) + 1)
    table = np.rint(np.ldexp(np.exp(-np.arange(count) * scale), EXPONENT_BITS)).astype(np.int64)
    table[-1] = 0 if count < 256 else table[-1]
    kept = np.array([random.random() < 0.7 for _ in codes], np.int64)
    also = np.array([random.random() < 0.7 for _ in codes], np.int64)
    inputs, parameters = [np.array([codes])], {"table": table}
    inputs += [kept[None]] if masks in ("input", "both") else []
    parameters |= {"mask": also} if masks in ("constant", "both") else {}
    operator = IntegerSoftmax(fraction_bits=EXPONENT_BITS, reciprocal_bits=RECIPROCAL_BITS)
    expected = operator.run_numpy(inputs, parameters)
    scores = torch.tensor([codes], dtype=torch.float64) * scale
    constants = {"mask": torch.from_numpy(also)} if "mask" in parameters else {}
    node = Node("shares", Softmax())
    found = compute_quantized(node, [scores, *map(torch.from_numpy, inputs[1:])], constants)
    assert torch.equal(found * 2**EXPONENT_BITS, torch.from_numpy(expected).double())


def test_the_gradient_of_a_quantized_softmax_is_nearly_that_of_a_softmax():
    x, mask = torch.randn(3, 9, dtype=torch.float64), torch.ones(9)
    mask[4] = 0
    weights = torch.randn(3, 9, dtype=torch.float64)
    gradients = []
    for run in (compute, compute_quantized):
        scores = x.clone().requires_grad_()
        (run(Node("shares", Softmax()), [scores], {"mask": mask}) * weights).sum().backward()
        assert scores.grad is not None
        gradients.append(scores.grad)
    assert torch.allclose(*gradients, atol=1e-3)
    assert not gradients[1][:, 4].any()

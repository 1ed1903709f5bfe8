"""A simplified graph computes what the model computes, whatever the model is made of."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photomask.chip.graph import FloatGraph, Node, capture_simplified, passes, simplify
from photomask.chip.graph.operations import (
    Add,
    AveragePool,
    ChannelAffine,
    Clamp,
    Convolution,
    Input,
    Linear,
    Matmul,
    MaxPool,
    Multiply,
    Normalize,
    Operation,
    Pad,
    Pointwise,
    PointwiseFunction,
    Softmax,
)
from photomask.errors import CaptureError, UnsupportedOperatorError

SIZE = 4
SHAPE = (1, SIZE, SIZE, SIZE)
"""Every node of a random graph has this shape, so that any node can read any other."""


def _affine(x: Tensor, factor: float, added: float) -> Tensor:
    return x * factor + added


def _function(name: str, apply: Callable[[Tensor], Tensor]) -> Pointwise:
    return Pointwise((PointwiseFunction(name, apply),))


BOUNDS = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0])
FACTORS = st.sampled_from([-3.0, -1.0, -0.125, 0.0, 1e-7, 0.5, 1.0, 7.0])
ADDED = st.sampled_from([-3.0, 0.0, 0.1, 20.0])
FUNCTIONS = [
    _function("square", torch.square),
    _function("abs", torch.abs),
    _function("neg", torch.neg),
    _function("sigmoid", torch.sigmoid),
    _function("silu", F.silu),
    _function("tanh", torch.tanh),
]
FLAT = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
POOL = ((3, 3), (1, 1), (1, 1))
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.sampled_from(FUNCTIONS),
    st.sampled_from(
        [
            Convolution(**FLAT, groups=1),
            Convolution(**FLAT, groups=SIZE),
            Linear(),
            Matmul(),
            ChannelAffine(1),
            ChannelAffine(3),
            Add((1, -1)),
            Add((1, 1)),
            Multiply(),
            MaxPool(*POOL, (1, 1), False),
            AveragePool(*POOL, False, True, None),
            AveragePool(*POOL, False, False, None),
            AveragePool(*POOL, False, True, 5),
            Softmax(),
            Normalize(True, 1e-5),
            Normalize(False, 0.1),
        ]
    ),
    st.builds(Clamp, st.one_of(BOUNDS, st.just(-math.inf)), st.one_of(BOUNDS, st.just(math.inf))),
    st.builds(
        lambda name, factor, added: _function(name, partial(_affine, factor=factor, added=added)),
        st.sampled_from(["mul_scalar", "add_scalar"]),
        FACTORS,
        ADDED,
    ),
    st.builds(
        lambda amount, value: Pad(((0, 0), (0, 0), (0, 0), (amount, -amount)), value),
        st.sampled_from([-1, 1]),
        st.sampled_from([0.0, -1.0, 2.5]),
    ),
)


def _constants(operation: Operation) -> dict[str, Tensor]:
    """Returns random constants by role; one channel's factor is 0 and one is negative."""
    factors = torch.tensor([-1.5, 0.0, 0.5, 2.0])
    match operation:
        case Convolution(groups=groups):
            weight = torch.randn(SIZE, SIZE // groups, 1, 1)
            return {"weight": weight, "bias": torch.randn(SIZE)}
        case Linear():
            return {"weight": torch.randn(SIZE, SIZE), "bias": torch.randn(SIZE)}
        case ChannelAffine():
            return {"weight": factors, "bias": torch.randn(SIZE)}
        case Normalize():
            return {"gain": factors, "bias": torch.randn(SIZE)}
    return {}


@st.composite
def graphs(draw: st.DrawFn) -> FloatGraph:
    """A random graph: every node reads one or two of the nodes before it, most often the last."""
    torch.manual_seed(draw(st.integers(0, 9)))
    nodes = [Node("x", Input(), shape=SHAPE)]
    constants: dict[str, Tensor] = {}
    for number, operation in enumerate(draw(st.lists(OPERATIONS, min_size=1, max_size=8))):
        name = f"n{number}"
        count = 2 if isinstance(operation, (Add, Multiply, Matmul)) else 1
        back = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(count)]
        inputs = tuple(nodes[max(0, len(nodes) - b)].name for b in back)
        roles = {role: f"{name}.{role}" for role in _constants(operation)}
        constants |= {roles[role]: value for role, value in _constants(operation).items()}
        nodes.append(Node(name, operation, inputs, roles, SHAPE, "here:1"))
    outputs = (nodes[-1].name, *(["n0"] if draw(st.booleans()) else []))
    return FloatGraph(tuple(nodes), outputs, constants).pruned()


def in_float64(graph: FloatGraph, x: Tensor) -> list[Tensor]:
    constants = {name: tensor.double() for name, tensor in graph.constants.items()}
    return list(replace(graph, constants=constants)(x.double()))


@settings(max_examples=80)
@given(graphs())
def test_a_random_graph_is_simplified_to_what_it_was(graph: FloatGraph):
    torch.manual_seed(0)
    simplified = simplify(graph)
    for size in (1e-3, 1.0, 30.0):
        x = size * torch.randn(3, *SHAPE[1:])
        # What rounding its constants to float32 does to the graph itself, several times over.
        nudged = {n: t.double() * (1 + 2.0**-24) for n, t in graph.constants.items()}
        expected = in_float64(graph, x)
        moved = replace(graph, constants=nudged)(x.double())
        for found, right, near in zip(in_float64(simplified, x), expected, moved, strict=True):
            largest = float(right.abs().max())
            allowed = 100 * float((near - right).abs().max()) + 1e-5 * largest + 1e-12
            assert float((found - right).abs().max()) <= allowed


class Exported(nn.Module):
    """What a graph written by hand leaves out: norms, clamps and lengths as models write them."""

    def __init__(self, apply: Callable[[Tensor], Tensor]):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.apply_to = apply

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self.norm(self.conv(x)))


def _length(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize(
    "apply",
    [
        lambda x: x.clamp(1.0, -1.0),
        lambda x: x.relu().clamp(-1.0, -2.0),
        lambda x: torch.sigmoid(x).clamp(0.75, 0.25) - x,
        lambda x: F.max_pool2d(x, 2).clamp(2.0, 1.0) + F.max_pool2d(x, 2),
        lambda x: x.clamp(min=-math.inf, max=0.5),
        lambda x: x / _length(x).clamp(min=3.0),
        lambda x: x / _length(x).clamp(max=0.5),
        lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True).clamp(min=0.7)),
        lambda x: F.normalize(x, dim=-1),
    ],
)
def test_what_is_captured_and_simplified_equals_the_model(apply: Callable[[Tensor], Tensor]):
    model = Exported(apply).eval()
    graph = capture_simplified(model, torch.randn(1, *SHAPE[1:]))
    for size in (1e-3, 1.0, 30.0):
        x = size * torch.randn(5, *SHAPE[1:])
        with torch.no_grad():
            expected = model(x)
        assert torch.allclose(graph(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_pass_that_changes_what_is_computed_is_named(monkeypatch: pytest.MonkeyPatch):
    def wrong(graph: FloatGraph) -> FloatGraph:
        """Moves a clamp's bound by a hair."""
        nodes = [
            replace(node, operation=Clamp(0.001, math.inf))
            if isinstance(node.operation, Clamp)
            else node
            for node in graph.nodes
        ]
        return replace(graph, nodes=tuple(nodes))

    model = Exported(lambda x: F.relu(x) + F.max_pool2d(x, 1)).eval()
    example = torch.randn(1, *SHAPE[1:])
    capture_simplified(model, example)
    at = [name for name, _ in passes.PASSES].index("affine_as_convolution")
    planted = (*passes.PASSES[:at], ("planted", wrong), *passes.PASSES[at:])
    monkeypatch.setattr(passes, "PASSES", planted)
    with pytest.raises(CaptureError, match=r"the pass 'planted' .*first node .*'clamp'.*\.py:"):
        capture_simplified(model, example)


def test_a_pass_that_depends_on_the_batch_is_named(monkeypatch: pytest.MonkeyPatch):
    def wrong(graph: FloatGraph) -> FloatGraph:
        mean = Pointwise((PointwiseFunction("shift", lambda x: x + (len(x) == 3)),))
        last = replace(graph.nodes[-1], name="last", operation=mean, inputs=graph.outputs)
        return replace(graph, nodes=(*graph.nodes, last), outputs=("last",))

    model = Exported(torch.abs).eval()
    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, ("planted", wrong)))
    with pytest.raises(CaptureError, match=r"'planted' .* with a batch of 3 samples"):
        capture_simplified(model, torch.randn(1, *SHAPE[1:]))


def test_a_bound_that_is_no_number_is_refused():
    model = Exported(lambda x: x.clamp(math.nan, 1.0)).eval()
    with pytest.raises(UnsupportedOperatorError, match="a bound is NaN"):
        capture_simplified(model, torch.randn(1, *SHAPE[1:]))

"""Sensitivities are what quantizing one tensor does, and the trace is that of the real Hessian."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import PreparedModel, Recipe, load_recipe, prepare
from photomask.chip.graph.float_graph import FloatGraph
from photomask.chip.mixed_precision import Measure, measure_sensitivity
from photomask.chip.mixed_precision.hessian import hessian_traces, probe
from photomask.chip.mixed_precision.sensitivity import current_graph
from photomask.chip.quantizers import PerChannel, Quantizer
from photomask.errors import DataError, RecipeError, UsageError

FLOAT32 = 1e-5
"""Errors are differences of outputs in float32; layout and batch decide their last bits."""


@pytest.fixture(scope="module")
def prepared(small_network: nn.Module, small_images: Tensor) -> PreparedModel:
    return prepare(small_network, load_recipe("w4a8"), small_images[:1])


def with_only(prepared: PreparedModel, site: str, bits: int, x: Tensor) -> Tensor:
    """Returns the outputs with one weight quantized, by the graph alone."""
    graph = prepared.graph
    name = graph.by_name[site].constants["weight"]
    constants = {**graph.constants, name: rounded_to(prepared, graph.constants[name], bits)}
    with torch.no_grad():
        return FloatGraph(graph.nodes, graph.outputs, constants)(x)[0].double()


def test_a_weight_costs_what_quantizing_it_alone_changes(
    prepared: PreparedModel, small_images: Tensor
):
    y = prepared.graph(small_images)[0].double()
    divergence = measure_sensitivity(prepared, small_images, weight_bits=(2, 5))
    noise = measure_sensitivity(
        prepared, small_images.split(5), weight_bits=(2, 5), measure="output_mse"
    )
    sites = ["stem.0", "body.0", "head"]
    assert [tensor.site for tensor in divergence.tensors] == sites
    assert {tensor.role for tensor in divergence.tensors} == {"weight"}
    for site, kl, mse in zip(sites, divergence.tensors, noise.tensors, strict=True):
        for bits, found_kl, found_mse in zip(kl.bits, kl.errors, mse.errors, strict=True):
            changed = with_only(prepared, site, bits, small_images)
            expected = (y.softmax(1) * (y.log_softmax(1) - changed.log_softmax(1))).sum(1).mean()
            assert found_kl == pytest.approx(float(expected), rel=FLOAT32)
            expected = (y - changed).square().sum() / y.square().sum()
            assert found_mse == pytest.approx(float(expected), rel=FLOAT32)


def test_activations_are_measured_where_they_arise(prepared: PreparedModel, small_images: Tensor):
    found = measure_sensitivity(
        prepared, small_images, weight_bits=(), activation_bits=(3, 8), measure="output_mse"
    )
    names = [tensor.site for tensor in found.tensors]
    assert {tensor.role for tensor in found.tensors} == {"activation"}
    assert not set(names) & {*prepared.graph.inputs, *prepared.graph.outputs}
    assert "stem.0" in names
    assert all(few > many > 0 for few, many in (tensor.errors for tensor in found.tensors))


def test_measuring_changes_nothing(prepared: PreparedModel, small_images: Tensor):
    before = {name: tensor.clone() for name, tensor in prepared.state_dict().items()}
    measure_sensitivity(prepared, small_images, activation_bits=(4, 8))
    after = prepared.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(q.is_fitted for q in prepared.modules() if isinstance(q, Quantizer))


def test_what_the_recipe_keeps_is_not_open(small_network: nn.Module, small_images: Tensor):
    recipe = Recipe(weight=load_recipe("w4a8").weight, keep=("first", "last"))
    prepared = prepare(small_network, recipe, small_images[:1])
    found = measure_sensitivity(prepared, small_images)
    assert [tensor.site for tensor in found.tensors] == ["body.0"]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def true_traces(graph: FloatGraph, x: Tensor) -> dict[str, float]:
    """Returns the traces of the Hessian of the KL divergence, from the whole Hessian."""
    p = graph(x)[0].detach().softmax(1)
    found = {}
    for node in graph.nodes:
        if "weight" not in node.constants:
            continue
        name = node.constants["weight"]
        weight = graph.constants[name]

        def loss(values: Tensor, name: str = name) -> Tensor:
            constants = {**graph.constants, name: values}
            (y,) = FloatGraph(graph.nodes, graph.outputs, constants)(x)
            return (p * (p.log() - y.log_softmax(1))).sum(1).mean()

        whole = torch.autograd.functional.hessian(loss, weight)
        size = weight.numel()
        found[node.name] = float(torch.as_tensor(whole).reshape(size, size).trace())
    return found


def test_the_estimated_trace_is_that_of_the_hessian():
    """Over all signs there are, the mean of the probes is the trace, with no error of chance."""
    x = torch.randn(2, 3, dtype=torch.float64)
    prepared = prepare(Tiny().eval(), load_recipe("w4a8"), x[:1].float())
    graph = current_graph(prepared)
    constants = {name: tensor.double() for name, tensor in graph.constants.items()}
    graph = FloatGraph(graph.nodes, graph.outputs, constants)
    layers = [node for node in graph.nodes if "weight" in node.constants]
    leaves = [constants[node.constants["weight"]].requires_grad_() for node in layers]
    outputs = graph(x)
    total = torch.zeros(len(layers), dtype=torch.float64)
    every = list(itertools.product((-1.0, 1.0), repeat=outputs[0].numel()))
    for signs in every:
        sign = torch.tensor(signs, dtype=torch.float64).reshape(outputs[0].shape)
        total += torch.tensor(probe(outputs, leaves, [sign]), dtype=torch.float64)
    traces = true_traces(graph, x)
    for node, found in zip(layers, (total / len(every) / len(x)).tolist(), strict=True):
        assert found == pytest.approx(traces[node.name], rel=1e-9)
    few = hessian_traces(graph, layers, [[x]], probes=400)
    for name, found in few.items():
        assert found == pytest.approx(traces[name], rel=0.2)


def test_the_hessian_measure_is_half_the_mean_curvature_times_the_squared_error():
    x = torch.randn(8, 3)
    prepared = prepare(Tiny().eval(), load_recipe("w4a8"), x[:1])
    found = measure_sensitivity(prepared, x, weight_bits=(2, 4), measure=Measure.HESSIAN)
    graph = current_graph(prepared)
    layers = [node for node in graph.nodes if "weight" in node.constants]
    traces = hessian_traces(graph, layers, [[x]])
    for tensor in found.tensors:
        weight = graph.constants_of(graph.by_name[tensor.site])["weight"]
        for bits, error in zip(tensor.bits, tensor.errors, strict=True):
            rounded = rounded_to(prepared, weight, bits)
            squared = float((weight - rounded).double().square().sum())
            expected = traces[tensor.site] / weight.numel() * squared / 2
            assert error == pytest.approx(expected, rel=1e-12)


def rounded_to(prepared: PreparedModel, weight: Tensor, bits: int) -> Tensor:
    observer = type(prepared.recipe.weight.observer)()
    quantizer = Quantizer(bits, granularity=PerChannel(), observer=observer, narrow=True)
    quantizer.observe(weight)
    quantizer.fit()
    return quantizer(weight)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_bits": (1, 4)}, RecipeError, "2 to 16"),
        ({"weight_bits": (4, 4)}, UsageError, "differ"),
        ({"weight_bits": ()}, UsageError, "no candidate widths were given"),
        ({"activation_bits": (4, 8), "measure": "hessian"}, UsageError, "for weights only"),
    ],
)
def test_bad_requests_are_refused(
    prepared: PreparedModel, small_images: Tensor, options: dict, error: type, message: str
):
    with pytest.raises(error, match=message):
        measure_sensitivity(prepared, small_images, **options)


def test_no_data_is_refused(prepared: PreparedModel):
    with pytest.raises(DataError, match="at least one sample"):
        measure_sensitivity(prepared, [])


def test_probabilities_need_classes():
    x = torch.randn(4, 3)
    prepared = prepare(nn.Linear(3, 1).eval(), load_recipe("w4a8"), x[:1])
    for measure in (Measure.OUTPUT_KL, Measure.HESSIAN):
        with pytest.raises(UsageError, match="output_mse"):
            measure_sensitivity(prepared, x, measure=measure)
    assert measure_sensitivity(prepared, x, measure="output_mse").samples == 4


class Ternary(Quantizer):
    """Two bits, whatever it is asked for."""

    def __init__(self):
        super().__init__(2, granularity=PerChannel(), narrow=True)

    def fit(self) -> None:
        self.bits = 2
        super().fit()


def test_a_quantizer_of_one_width_is_refused():
    x = torch.randn(4, 3)
    prepared = prepare(nn.Linear(3, 3).eval(), Recipe(weight=Ternary()), x[:1])
    with pytest.raises(RecipeError, match="Ternary has 2 bits although 4 were asked for"):
        measure_sensitivity(prepared, x, weight_bits=(4,))

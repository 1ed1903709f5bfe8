"""Calibrated graphs: shared scales, refusals, and the fake path against the integers."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.chip.conversion.flow import (
    WIDE,
    Function,
    Several,
    assert_engines_agree,
    converted,
    inputs_of,
    randomize,
    real_outputs,
    signal_to_noise,
)
from torch import Tensor, nn

from photomask.chip import (
    PreparedModel,
    Quantizer,
    Recipe,
    Rule,
    calibrate,
    convert,
    load_recipe,
    prepare,
)
from photomask.chip.target import PRESETS
from photomask.errors import DataError, QuantizerError

ASIC = PRESETS["asic"]
MINMAX = "w8a8-minmax"


def prepared_with(model: nn.Module, inputs: list[Tensor], recipe: str = MINMAX) -> PreparedModel:
    prepared = prepare(randomize(model), load_recipe(recipe), [x[:1] for x in inputs])
    calibrate(prepared, [inputs])
    return prepared


class Dense(nn.Module):
    """Each layer reads all features before it, joined."""

    def __init__(self, growth: int = 4, layers: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3 + growth * i, growth, 3, padding=1), nn.ReLU())
            for i in range(layers)
        )
        self.head = nn.Conv2d(3 + growth * layers, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)


def requantized_joins(prepared: PreparedModel) -> list[str]:
    program = convert(prepared, ASIC)
    return [step.name for step in program.steps if ".input" in step.name]


def test_joined_features_of_like_ranges_share_one_scale():
    model = Function(lambda x: torch.cat([(x * 2).relu(), (x * 2.5).relu()], 1).mean((2, 3)))
    prepared = prepared_with(model, inputs_of((3, 4, 4)))
    assert not requantized_joins(prepared)
    owners = {prepared.scale_owner(n.name) for n in prepared.graph.nodes if n.name != "args_0"}
    assert len(owners) <= 3


def test_joined_features_of_unlike_ranges_keep_their_scales():
    model = Function(lambda x: torch.cat([(x * 2).tanh(), x * 200], 1).mean((2, 3)))
    prepared = prepared_with(model, inputs_of((3, 4, 4)))
    assert len(requantized_joins(prepared)) == 1
    x = inputs_of((3, 4, 4))
    assert signal_to_noise(model, x, converted(model, x)) > 60


def test_inputs_and_outputs_of_the_graph_keep_their_scales():
    model = Function(lambda x: (y := (x * 1.1).relu(), torch.cat([x, y], 1)))
    x = inputs_of((3, 4, 4))
    prepared = prepared_with(model, x)
    program = convert(prepared, ASIC)
    scales = [program.edges[name].scale for name in (*program.inputs, *program.outputs)]
    assert len(set(scales)) == 3
    assert signal_to_noise(model, x, program) > 35


def test_a_chain_of_joins_loses_nothing_to_shared_scales():
    torch.manual_seed(0)
    x = inputs_of((3, 6, 6))
    model = randomize(Dense())
    prepared = prepared_with(model, x)
    for node in prepared.graph.nodes:
        quantizer = prepared.activation_quantizer(node.name)
        own = (
            prepared.activation_quantizers[node.name.replace(".", "/")]
            if (not node.operation.keeps_scale)
            else quantizer
        )
        assert float(quantizer.scale) <= 2 * float(own.scale)
    assert signal_to_noise(model, x, convert(prepared, ASIC)) > 35


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one sample"),
        (torch.zeros(0, 3, 4, 4), "expected \\[batch, 3, 4, 4\\]|at least one sample"),
        (torch.zeros(2, 3, 4, 5), "expected \\[batch, 3, 4, 4\\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int32), "must be float tensors"),
        ([object()], "holds a object"),
        ([[torch.zeros(2, 3, 4, 4)] * 3], "the model has 1 input"),
        (torch.full((2, 3, 4, 4), float("nan")), "sample 0 holds NaN"),
    ],
)
def test_bad_calibration_data_is_refused(data, message: str):
    prepared = prepare(nn.Conv2d(3, 2, 1), load_recipe("w8a8"), torch.zeros(1, 3, 4, 4))
    with pytest.raises(DataError, match=message):
        calibrate(prepared, data)


def test_the_sample_that_is_infinite_is_named():
    prepared = prepare(nn.Flatten(), load_recipe("w8a8"), torch.zeros(1, 3, 4))
    data = torch.zeros(70, 3, 4)
    data[65, 1, 2] = float("inf")
    with pytest.raises(DataError, match="sample 65 holds"):
        calibrate(prepared, data)


def test_the_node_that_gives_nan_is_named():
    prepared = prepare(Function(lambda x: (x - 5).log()), load_recipe("w8a8"), torch.ones(1, 3) * 9)
    with pytest.raises(DataError, match=r"output of '.*' \(.*flow.py:\d+\): .*NaN or infinity"):
        calibrate(prepared, torch.ones(2, 3))


def test_uncalibrated_models_do_not_convert():
    prepared = prepare(nn.Conv2d(3, 2, 1), load_recipe("w8a8"), torch.zeros(1, 3, 4, 4))
    with pytest.raises(QuantizerError, match="never calibrated"):
        convert(prepared, ASIC)


def degenerate(case: str) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))
    randomize(model)
    with torch.no_grad():
        match case:
            case "zero weights in a channel":
                model[0].weight[1] = 0
            case "all weights zero":
                model[0].weight.zero_()
            case "constant weights":
                model[0].weight.fill_(0.3)
            case "variance 0":
                model[1].running_var[2] = 0
            case "variance 1e-40":
                model[1].running_var[2:4] = 1e-40
                model[0].weight[2:4] = 1e-20
            case "gamma 0":
                model[1].weight[3] = 0
                model[1].bias[3] = 50.0
            case "gamma negative":
                model[1].weight.neg_()
            case "huge weights":
                model[0].weight *= 1e12
            case "tiny weights":
                model[0].weight *= 1e-12
                model[1].running_var.fill_(1e-12)
            case "channels nine decades apart":
                model[0].weight *= 10.0 ** torch.arange(-6, 6, 2).reshape(6, 1, 1, 1)
                model[1].running_var *= 100.0 ** torch.arange(-6, 6, 2)
                model[1].running_mean *= 10.0 ** torch.arange(-6, 6, 2)
    return model


@pytest.mark.parametrize(
    "case",
    [
        "zero weights in a channel",
        "all weights zero",
        "constant weights",
        "variance 0",
        "variance 1e-40",
        "gamma 0",
        "gamma negative",
        "huge weights",
        "tiny weights",
        "channels nine decades apart",
    ],
)
def test_degenerate_weights_convert(case: str):
    model, x = degenerate(case), inputs_of((3, 5, 5))
    assert signal_to_noise(model, x, convert(prepared_with_weights(model, x), ASIC)) > 28


def prepared_with_weights(model: nn.Module, x: list[Tensor]) -> PreparedModel:
    prepared = prepare(model, load_recipe(MINMAX), [x[0][:1]])
    calibrate(prepared, [x])
    return prepared


@pytest.mark.parametrize("value", [0.0, 3.7, -1e-20, 1e20])
def test_constant_inputs_convert(value: float):
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Flatten())
    x = [torch.full((2, 3, 4, 4), value)]
    assert signal_to_noise(model, x, convert(prepared_with_weights(model, x), ASIC)) > 30


def test_preparing_twice_gives_the_same_program():
    x = inputs_of((3, 6, 6))
    model = randomize(Dense(layers=2))
    hashes = {
        convert(prepared_with_weights(copy.deepcopy(model), x), ASIC).content_hash()
        for _ in range(2)
    }
    assert len(hashes) == 1


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6())
        self.b = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.SiLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x + self.b(F.pad(x, (1, 0, 0, 1), value=0.3))[:, :, :-1, 1:]
        return self.head(F.max_pool2d(x, 2).mean((2, 3)))


def test_the_fake_path_gives_the_integers():
    """It knows no rescaling multipliers and no integer biases, so ties may round to a neighbour."""
    x = inputs_of((3, 8, 8))
    prepared = prepared_with(Mixed(), x)
    program = convert(prepared, WIDE)
    integers = assert_engines_agree(program, x)
    with torch.no_grad():
        fake = prepared.forward(*x)
    for name, found, value in zip(
        program.outputs, real_outputs(program, integers), fake, strict=True
    ):
        scale = program.edges[name].scale[0]
        steps = ((found - value.double()) / scale).abs()
        # The output has 16 bits: one 8-bit step before it is many of its own.
        assert float(steps.max()) * scale < 0.02 * float(value.abs().max())
    first = next(n.name for n in prepared.graph.nodes if n.operation.kind == "convolution")
    edge = program.edges[first]
    captured = dict(zip((n.name for n in prepared.graph.nodes), _values(prepared, x), strict=True))
    codes = captured[first].double() / edge.scale[0] + edge.zero_point
    difference = (codes.round() - integers[first]).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 0.005


def _values(prepared: PreparedModel, x: list[Tensor]) -> list[Tensor]:
    """Every edge of the fake path, by making every node an output."""
    names = tuple(node.name for node in prepared.graph.nodes)
    everything = copy.deepcopy(prepared)
    everything.graph = replace(prepared.graph, outputs=names)
    with torch.no_grad():
        return list(everything(*x))


def test_gradients_reach_all_weights():
    x = inputs_of((3, 8, 8))
    prepared = prepared_with(Mixed(), x)
    sum(y.square().sum() for y in prepared(*x)).backward()
    for name, parameter in prepared.weights.items():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_values_beyond_the_data_are_representable():
    model = Several(
        lambda x: F.pad(x, (1, 1), value=9.0),
        lambda x: x.clamp(min=7.0),
        lambda x: F.pad(x.flatten(2), (1, 0), value=-9.0),
    )
    x = inputs_of((3, 4, 4))
    assert signal_to_noise(model, x, convert(prepared_with(model, x), ASIC)) > 35


def test_recipes_name_what_the_graph_has():
    recipe = Recipe(rules=())
    prepared = prepare(Mixed(), recipe, torch.zeros(1, 3, 8, 8))
    assert {"a.0", "b.0", "head"} <= {key.replace("/", ".") for key in prepared.weight_quantizers}


def test_a_prepared_model_prints_its_quantizers_as_a_table():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    images = torch.rand(4, 2, 4, 4)
    prepared = prepare(model, load_recipe("w8a8-minmax"), images)
    assert "not calibrated" in str(prepared)
    assert calibrate(prepared, images) is prepared
    assert "not calibrated" not in str(prepared)
    rows = [line.split() for line in str(prepared).splitlines()[2:]]
    assert [row[:4] for row in rows[1:]] == [
        ["0", "convolution", "int8", "uint8"],
        ["3", "linear", "int8", "uint16"],
    ]


def test_training_changes_what_is_observed_and_leaves_the_float_graph_alone():
    x = inputs_of((3, 8, 8))
    prepared = prepare(randomize(Mixed()), load_recipe(MINMAX), [v[:1] for v in x])
    before = {name: value.clone() for name, value in prepared.graph.constants.items()}
    with torch.no_grad():
        for parameter in prepared.weights.parameters():
            parameter.mul_(2)
    calibrate(prepared, [x])
    assert all(torch.equal(prepared.graph.constants[name], before[name]) for name in before)
    node = next(node for node in prepared.graph.nodes if "weight" in node.constants)
    observed = prepared.weight_quantizer(node.name).observer.high
    assert torch.equal(observed, 2 * before[node.constants["weight"]].flatten(1).amax(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.first(x))
        return self.head((x + self.second(x)).mean((2, 3)))


def test_layers_read_a_wide_stream_through_narrow_copies():
    x = inputs_of((3, 8, 8))
    prepared = prepared_with(Residual(), x, "w4a4")
    nodes = prepared.graph.by_name
    read = {name: nodes[name].inputs[0] for name in ("stem", "first", "second", "head")}
    bits = {name: prepared.activation_quantizer(edge).bits for name, edge in read.items()}
    assert read["first"] == "stem.copy"
    assert read["second"] == "add.copy"
    assert bits == {"stem": 8, "first": 4, "second": 4, "head": 8}
    assert [prepared.activation_quantizer(name).bits for name in nodes["add"].inputs] == [8, 8]
    program = convert(prepared, WIDE)
    assert_engines_agree(program, x)
    six = Rule("operator:copy", activation=Quantizer(6, symmetric=False))
    recipe = load_recipe("w4a4")
    asked = prepare(Residual(), replace(recipe, rules=(*recipe.rules, six)), [x[0][:1]])
    assert asked.activation_quantizer("stem.copy").bits == 6
    narrow = program.edges["stem.copy"]
    assert (narrow.format.bits, narrow.shape) == (4, program.edges["stem"].shape)


class Joined(nn.Module):
    """A token of its own and the patches are joined, then positions are added."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x)], dim=1)
        return self.head(self.norm(x + self.positions))


def test_what_is_joined_before_the_first_sum_belongs_to_the_stream():
    prepared = prepare(Joined().eval(), load_recipe("w8a8-residual16"), torch.randn(1, 4, 6))
    wide = [site.name for site in prepared.sites if site.is_residual]
    assert wide == [
        node.name
        for node in prepared.graph.nodes
        if node.name == "patches" or node.operation.kind in ("constant", "concatenate", "add")
    ]
    assert prepared.activation_quantizer("patches").bits == 16
    assert prepared.activation_quantizer("norm").bits == 8

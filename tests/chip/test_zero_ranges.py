"""What is 0, in the weights or over calibration, leaves the rest of a network right."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip import (
    PreparedModel,
    Quantizer,
    Recipe,
    TorchEngine,
    calibrate,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.observers import Grid, Observer, Percentile
from photomask.chip.quantizers import LSQ, PACT, RCF, TQT, Binary, PerChannel, PerGroup
from photomask.errors import QuantizerError

ASIC = load_target("asic")


def zeros(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Network(nn.Module):
    """A forward function over layers."""

    def __init__(self, apply: Callable[..., Tensor], **layers: nn.Module):
        super().__init__()
        self.apply_to = apply
        self.layers = nn.ModuleDict(layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.apply_to(self.layers, *inputs)


def control() -> Network:
    """A ControlNet's zero convolution beside a frozen one."""
    return Network(
        lambda m, x: m["last"](F.relu(m["a"](x) + m["zero"](F.relu(m["b"](x))))),
        a=nn.Conv2d(4, 8, 1),
        b=nn.Conv2d(4, 8, 1),
        zero=zeros(nn.Conv2d(8, 8, 1)),
        last=nn.Conv2d(8, 4, 1),
    )


def adapter() -> Network:
    """LoRA: a product of two thin layers, the second of them 0."""
    return Network(
        lambda m, x: m["last"](F.gelu(m["a"](x) + 0.5 * m["up"](m["down"](x)))),
        a=nn.Linear(12, 8),
        down=nn.Linear(12, 2, bias=False),
        up=zeros(nn.Linear(2, 8, bias=False)),
        last=nn.Linear(8, 4),
    )


def modulation() -> Network:
    """adaLN-zero: shift, scale and gate are 0 at first."""

    def apply(m: nn.ModuleDict, x: Tensor) -> Tensor:
        shift, scale, gate = m["zero"](F.silu(x)).chunk(3, -1)
        return m["last"](x + gate * m["a"](m["norm"](x) * (1 + scale) + shift))

    return Network(
        apply,
        zero=zeros(nn.Linear(12, 36)),
        norm=nn.LayerNorm(12),
        a=nn.Linear(12, 12),
        last=nn.Linear(12, 4),
    )


def dead_channel(groups: int = 1, size: float = 0.0, bias: float = 0.3) -> Network:
    """One channel whose weights are 0, or nearly so, and whose bias is not."""
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=groups)
    with torch.no_grad():
        layer.weight[2] *= size
        layer.bias[2] = bias
    return Network(lambda m, x: m["last"](F.relu(m["a"](x))), a=layer, last=nn.Conv2d(4, 4, 1))


def dead_layer(size: float) -> Network:
    """Biases alone: a layer without weights."""
    layer = zeros(nn.Linear(12, 8))
    layer.bias.data = torch.linspace(0.02, 0.3, 8) * size
    return Network(lambda m, x: m["last"](F.relu(m["a"](x))), a=layer, last=nn.Linear(8, 4))


def dead_activation() -> Network:
    """A ReLU that nothing passes."""
    layer = nn.Linear(12, 8)
    nn.init.constant_(layer.bias, -100.0)
    return Network(lambda m, x: m["last"](F.relu(m["a"](x))), a=layer, last=nn.Linear(8, 4))


def norm_without_gain(channels: slice) -> Network:
    norm = nn.LayerNorm(12)
    with torch.no_grad():
        norm.weight[channels] = 0
        norm.bias.uniform_(-1, 1)
        norm.bias[5] = 0
    return Network(lambda m, x: m["last"](m["norm"](x)), norm=norm, last=nn.Linear(12, 4))


def table_of_zeros() -> Network:
    return Network(
        lambda m, x: m["last"](m["rows"](x) + m["zero"](x)),
        rows=nn.Embedding(7, 8),
        zero=zeros(nn.Embedding(7, 8)),
        last=nn.Linear(8, 4),
    )


def first_state() -> Network:
    """A recurrent cell whose state has been 0 so far."""
    return Network(
        lambda m, x, h: m["last"](torch.tanh(m["a"](x) + m["b"](h))),
        a=nn.Linear(12, 12),
        b=nn.Linear(12, 12),
        last=nn.Linear(12, 4),
    )


def zero_scores() -> Network:
    """An attention whose scores are all 0, and what is joined, averaged and gated by zeros."""

    def apply(m: nn.ModuleDict, x: Tensor) -> Tensor:
        x = x[:, None] * torch.linspace(0.5, 1, 3).reshape(1, 3, 1)
        y = F.scaled_dot_product_attention(m["zero"](x), m["a"](x), x)
        y = torch.cat([y * torch.sigmoid(m["zero"](x)), m["zero"](y)], 1)
        return m["last"](y.mean(1) - m["zero"](x).mean(1))

    return Network(apply, zero=zeros(nn.Linear(12, 12)), a=nn.Linear(12, 12), last=nn.Linear(12, 4))


def constant(value: float) -> Network:
    return Network(
        lambda m, x: m["last"](m["a"](x).clamp(value, value)),
        a=nn.Linear(12, 8),
        last=nn.Linear(8, 4),
    )


def nothing_at_all() -> Network:
    return Network(
        lambda m, x: m["last"](F.relu(m["a"](x))),
        a=zeros(nn.Linear(12, 8)),
        last=zeros(nn.Linear(8, 4)),
    )


def images() -> list[Tensor]:
    return [torch.randn(32, 4, 6, 6)]


def vectors(size: float = 1.0) -> list[Tensor]:
    return [size * torch.randn(32, 12)]


CASES: dict[str, tuple[Callable[[], Network], Callable[[], list[Tensor]]]] = {
    "zero convolution": (control, images),
    "adapter": (adapter, vectors),
    "modulation": (modulation, vectors),
    "dead channel": (dead_channel, images),
    "nearly dead channel": (lambda: dead_channel(size=1e-6), images),
    "dead channel of a depthwise layer": (lambda: dead_channel(groups=4), images),
    "dead channel of a group, no bias": (lambda: dead_channel(groups=2, bias=0.0), images),
    "layer without weights": (lambda: dead_layer(1.0), lambda: [255 * torch.rand(32, 12)]),
    "with small biases": (lambda: dead_layer(1e-4), lambda: vectors(1e3)),
    "with large biases": (lambda: dead_layer(1e3), lambda: vectors(1e-3)),
    "dead activation": (dead_activation, vectors),
    "two channels without gain": (lambda: norm_without_gain(slice(4, 6)), vectors),
    "a norm without gain": (lambda: norm_without_gain(slice(None)), vectors),
    "a table of zeros": (table_of_zeros, lambda: [torch.randint(0, 7, (32, 5))]),
    "first state": (first_state, lambda: [*vectors(), torch.zeros(32, 12)]),
    "zero scores": (zero_scores, vectors),
    "a constant": (lambda: constant(0.7), vectors),
    "a constant of zeros": (lambda: constant(0.0), vectors),
    "nothing at all": (nothing_at_all, vectors),
}
PAIRS = [
    ("w8a8", "asic"),
    ("w8a8-minmax", "onnxruntime"),
    ("w8a8-residual16", "asic"),
    ("w8a8-signed", "tflite"),
    ("w8a8-symmetric", "deeploy"),
    ("w8a8-po2", "asic"),
]


def error_of(network: Network, inputs: list[Tensor], recipe: Recipe, target: str) -> float:
    """Returns the worst error of the program, as a part of the largest output."""
    network.eval()
    prepared = prepared_with(network, inputs, recipe)
    program = convert(prepared, load_target(target))
    codes = {
        name: program.quantize_input(x, name)
        for name, x in zip(program.inputs, inputs, strict=True)
    }
    (name,) = program.outputs
    found = program.edges[name].dequantize(TorchEngine(program).run(codes)[name])
    with torch.no_grad():
        wanted = network(*inputs)
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9))


def prepared_with(network: Network, inputs: list[Tensor], recipe: Recipe) -> PreparedModel:
    prepared = prepare(network, recipe, [x[:1] for x in inputs])
    calibrate(prepared, [tuple(inputs)])
    return prepared


@pytest.mark.parametrize("case", CASES)
def test_a_network_with_zeros_is_right_at_eight_bits(case: str):
    make, data = CASES[case]
    network, inputs = make(), data()
    for recipe, target in PAIRS:
        # Power-of-two scales, which clip by squared error, are coarser.
        limit = 0.2 if recipe == "w8a8-po2" else 0.05
        assert error_of(network, inputs, load_recipe(recipe), target) < limit, recipe


@pytest.mark.parametrize(
    "weight",
    [
        LSQ(8),
        LSQ(8, granularity=PerChannel()),
        RCF(8, granularity=PerChannel()),
        TQT(8, granularity=PerChannel()),
        Quantizer(8, granularity=PerGroup(2), narrow=True),
        Quantizer(8, granularity=PerChannel(), power_of_two=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", ["dead channel", "layer without weights", "adapter"])
def test_weights_of_zeros_suit_every_quantizer(case: str, weight: Quantizer):
    make, data = CASES[case]
    recipe = Recipe(name="own", weight=weight, activation=Quantizer(8, symmetric=False))
    assert error_of(make(), data(), recipe, "asic") < 0.05


@pytest.mark.parametrize(
    "activation", [LSQ(8), PACT(8), TQT(8), Quantizer(8, observer=Percentile(99.9))], ids=str
)
def test_a_branch_of_zeros_suits_every_quantizer(activation: Quantizer):
    weight = Quantizer(8, granularity=PerChannel(), narrow=True)
    recipe = Recipe(name="own", weight=weight, activation=activation)
    assert error_of(control(), images(), recipe, "asic") < 0.2


def test_a_quantizer_without_a_code_for_zero_is_refused():
    recipe = Recipe(name="own", weight=Binary(), activation=Quantizer(8, symmetric=False))
    with pytest.raises(QuantizerError, match=r"channels of it are 0, and Binary has no code for 0"):
        prepared_with(dead_channel(), images(), recipe)


def scale(prepared: PreparedModel, suffix: str) -> float:
    name = next(n.name for n in prepared.graph.nodes if n.name.endswith(suffix))
    return float(prepared.activation_quantizer(name).scale)


def test_a_branch_of_zeros_reaches_as_far_as_the_sum_it_joins():
    prepared = prepared_with(control().eval(), images(), load_recipe("w8a8"))
    branch, total = scale(prepared, "zero"), scale(prepared, "add")
    assert branch == pytest.approx(2 * total, rel=0.02)  # it may be negative, the sum may not


def test_a_layer_without_weights_has_a_bias_in_parts_of_the_output_step():
    network = dead_layer(1.0).eval()
    program = convert(prepared_with(network, vectors(255), load_recipe("w8a8")), ASIC)
    (unit,) = {program.edges["layers.a.accumulator"].scale}
    assert max(unit) <= program.edges["layers.a"].scale[0] / 128


class Middle(Observer):
    """Keeps the middle value, which is 0 where most values are."""

    def choose(self, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(low), torch.zeros_like(high)


def test_values_that_an_observer_leaves_out_entirely_still_give_a_range():
    quantizer = Quantizer(8, symmetric=False, observer=Middle())
    quantizer.observe(torch.tensor([0.0, 0.0, 3.0]))
    quantizer.fit()
    assert float(quantizer.scale) == pytest.approx(3 / 255)
    assert not quantizer.saw_only_zero

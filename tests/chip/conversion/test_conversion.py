"""Targets, number formats and quantizers that a program may ask for, and those that it may not."""

import numpy as np
import pytest
import torch
from tests.chip.conversion.flow import (
    FINE,
    WIDE,
    Function,
    assert_engines_agree,
    converted,
    inputs_of,
    randomize,
    signal_to_noise,
)
from torch import Tensor, nn

from photomask.chip import Quantizer, Recipe, Target, load_recipe, load_target
from photomask.chip.conversion.builder import portable
from photomask.chip.observers import MSE
from photomask.chip.operators import Convolution, Requantize
from photomask.chip.quantizers import PerChannel, PerGroup, PerTensor
from photomask.chip.recipe import Rule
from photomask.chip.target import Rounding, ZeroPoints
from photomask.errors import QuantizerError, TargetError


class Residual(nn.Module):
    """What most networks are made of, with every kind of requantization."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid())
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        x = torch.relu(x + y * self.gate(y))
        x = torch.cat([self.pool(x), nn.functional.max_pool2d(x, 3, 2, 1)], 1)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return randomize(Residual())


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    torch.manual_seed(4)
    return inputs_of((3, 12, 12))


@pytest.mark.parametrize(
    ("recipe", "target", "least"),
    [
        ("w8a8-minmax", "asic", 35),
        ("w8a8", "asic", 30),
        ("w8a8-minmax", "onnxruntime", 35),
        ("w8a8-signed", "tflite", 30),
        ("w8a8-symmetric", "deeploy", 28),
        ("w8a8-po2", "max78000", 22),
        ("w4a8", "asic", 14),
        ("w4a8-group", "asic", 14),
        ("w4a4", "asic", 6),
    ],
)
def test_presets_convert(network, images, recipe: str, target: str, least: float):
    program = converted(network, images, load_recipe(recipe), load_target(target))
    assert signal_to_noise(network, images, program) > least


def test_activations_of_sixteen_bits_need_a_wider_accumulator_for_products(network, images):
    recipe = load_recipe("w8a16")
    with pytest.raises(TargetError, match=r"'multiply.accumulator' .* need 33 bits"):
        converted(network, images, recipe, load_target("asic"))
    assert signal_to_noise(network, images, converted(network, images, recipe, WIDE)) > 40


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x * 2, x.relu()], 1),
        lambda x: x * x.sigmoid(),
        lambda x: x @ x.transpose(1, 2),
        lambda x: x + x.relu(),
    ],
)
def test_outputs_finer_than_their_sums_convert_where_only_shifts_are_possible(function):
    x = inputs_of((3, 4))
    program = converted(Function(function), x, load_recipe("w8a8-po2"), load_target("max78000"))
    assert signal_to_noise(Function(function), x, program) > 25


def test_sixteen_bits_lose_next_to_nothing(network, images):
    assert signal_to_noise(network, images, converted(network, images)) > 70


@pytest.mark.parametrize("rounding", list(Rounding))
def test_every_rounding_converts(network, images, rounding: Rounding):
    target = Target(name="rounding", rounding=rounding, multiplier_bits=31)
    program = converted(network, images, load_recipe("w8a8-minmax"), target)
    assert signal_to_noise(network, images, program) > (20 if rounding == "truncate" else 35)


REFUSED = {
    "accumulator": (
        Target(name="t", accumulator_bits=16),
        "w8a8",
        "the accumulator of the target 't' has 16",
    ),
    "bias": (Target(name="t", bias_bits=8), "w8a8", r"the target's int8 cannot hold"),
    "shift": (Target(name="t", shift_min=40), "w8a8", "below the target's shift_min 40"),
    "unsigned": (Target(name="t", unsigned_activations=False), "w8a8", "only signed activations"),
    "zero points": (Target(name="t", zero_points=ZeroPoints.NONE), "w8a8", "zero point"),
    "weights": (Target(name="t", weight_bits=(4,)), "w8a8", "weights of the target 't' have 4"),
    "activations": (
        Target(name="t", activation_bits=(4,)),
        "w8a8",
        "activations of the target 't' have 4",
    ),
    "shifts alone": (Target(name="t", power_of_two_only=True), "w8a8", "not a power of two"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_that_are_too_narrow_are_refused(network, images, case: str):
    target, recipe, message = REFUSED[case]
    with pytest.raises(TargetError, match=message) as caught:
        converted(network, images, load_recipe(recipe), target)
    assert any(f"'{part}" in str(caught.value) for part in ("x", "stem", "body", "gate", "head"))


def weights(quantizer: Quantizer) -> Recipe:
    return Recipe(weight=quantizer, activation=FINE.activation)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 16])
def test_groups_of_any_size_convert(images, size: int):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Conv2d(10, 6, 3), nn.Flatten(), nn.Linear(384, 3)
    ).eval()
    recipe = weights(Quantizer(8, granularity=PerGroup(size)))
    program = converted(model, images, recipe, WIDE)
    assert signal_to_noise(model, images, program) > 38
    shapes = [
        program.tensors[step.tensors["group_multiplier"]].shape
        for step in program.steps
        if "group_multiplier" in step.tensors
    ]
    assert len(shapes) == 3


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel()])
def test_affine_weights_convert_where_the_target_has_zero_points(network, images, granularity):
    recipe = weights(Quantizer(8, symmetric=False, granularity=granularity))
    target = WIDE.model_copy(update={"zero_points": ZeroPoints.ALL})
    assert signal_to_noise(network, images, converted(network, images, recipe, target)) > 35
    with pytest.raises(TargetError, match="is affine, but the target"):
        converted(network, images, recipe, WIDE)


def test_weights_per_tensor_have_one_multiplier(network, images):
    program = converted(network, images, weights(Quantizer(8, granularity=PerTensor())))
    assert signal_to_noise(network, images, program) > 35
    multipliers = [name for name in program.tensors if name.endswith("multiplier")]
    assert multipliers
    assert all(program.tensors[name].size in (1, 9) for name in multipliers)


def test_precision_may_differ_from_layer_to_layer(network, images):
    rules = (
        Rule("stem.0", weight=Quantizer(2, granularity=PerChannel(), observer=MSE())),
        Rule("re:body.*", weight=Quantizer(5), activation=Quantizer(12, symmetric=False)),
        Rule("operator:add", activation=Quantizer(16, symmetric=False)),
        Rule("last", weight=Quantizer(16, granularity=PerChannel(), narrow=True)),
    )
    program = converted(network, images, Recipe(rules=rules))
    assert signal_to_noise(network, images, program) > 3
    formats = {name: str(format) for name, format in program.formats.items()}
    assert formats["stem.0.weight"] == "int2"
    assert formats["body.0.weight"] == "int5"
    assert formats["head.weight"] == "int16"
    assert program.edges["body.0"].format.bits == 12
    assert program.edges["add"].format.bits == 16


@pytest.mark.parametrize("bits", range(2, 17))
def test_error_falls_with_every_bit(bits: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.Flatten()).eval()
    x = inputs_of((4, 20), batch=16)
    quantizer = Quantizer(bits, symmetric=False)
    recipe = Recipe(weight=FINE.weight, activation=quantizer, output_bits=bits)
    program = converted(model, x, recipe)
    assert signal_to_noise(model, x, program) > 6.02 * bits - 12


class PowersOfTwo(Quantizer):
    """Weights that are a sign and a shift."""

    def quantize(self, x: Tensor) -> Tensor:
        codes = super().quantize(x)
        return (
            codes.sign()
            * torch.exp2(codes.abs().clamp(min=0.6).log2().round().clamp(max=6))
            * (codes != 0)
        )


def test_a_quantizer_of_the_user_works_end_to_end(network, images):
    recipe = weights(PowersOfTwo(8, granularity=PerChannel(), narrow=True))
    program = converted(network, images, recipe)
    assert signal_to_noise(network, images, program) > 6
    magnitudes = np.abs(program.tensors["body.0.weight"])
    assert set(np.unique(magnitudes)) <= {0, 1, 2, 4, 8, 16, 32, 64}


class Fractional(Quantizer):
    def quantize(self, x: Tensor) -> Tensor:
        return super().quantize(x) * 0.5


class Outside(Quantizer):
    def quantize(self, x: Tensor) -> Tensor:
        return super().quantize(x) * 2


@pytest.mark.parametrize(
    ("quantizer", "message"), [(Fractional(8), "no integers"), (Outside(8), "outside its format")]
)
def test_a_quantizer_that_breaks_its_format_is_named(network, images, quantizer, message: str):
    with pytest.raises(QuantizerError, match=message) as caught:
        converted(network, images, weights(quantizer))
    assert "weight of 'stem.0'" in str(caught.value)


@pytest.mark.parametrize(
    ("bits", "allowed"), [(8, 0.05), (12, 0.004), (16, 2e-4), (24, 0), (31, 0)]
)
def test_convolutions_equal_a_float_requantization(bits: int, allowed: float):
    """ONNX Runtime computes `rint(accumulator * s_x * s_w / s_y)`, in floating point."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=4), nn.Flatten()).eval()
    x = inputs_of((8, 10, 10))
    target = load_target("onnxruntime").model_copy(update={"multiplier_bits": bits})
    program = converted(model, x, load_recipe("w8a8-minmax"), target)
    integers = assert_engines_agree(program, x)
    different = total = 0
    for step in program.steps:
        if not isinstance(step.operator, Requantize):
            continue
        before, after = program.edges[step.inputs[0]], program.edges[step.output]
        if after.format.bits != 8:
            continue
        scale = np.array(before.scale).reshape(-1, 1, 1)
        exact = np.rint(integers[before.name].numpy() * (scale / after.scale[0])) + after.zero_point
        exact = np.clip(exact, step.operator.low, step.operator.high)
        difference = np.abs(exact - integers[after.name].numpy())
        assert difference.max() <= 1
        different += int((difference > 0).sum())
        total += difference.size
    assert total > 8000
    assert different <= allowed * total


def test_every_step_names_its_node_and_line(network, images):
    program = converted(network, images, load_recipe("w8a8"), load_target("asic"))
    assert any(isinstance(step.operator, Convolution) for step in program.steps)
    for step in program.steps:
        assert step.node
        assert ".py:" in step.source


def test_sums_that_leave_no_bits_for_aligning_scales_are_refused():
    model = Function(lambda x: x + x.relu())
    with pytest.raises(TargetError, match="for aligning their scales"):
        converted(model, inputs_of((3, 4)), FINE, Target(name="t", accumulator_bits=18))


def test_sources_are_the_same_on_every_machine():
    here = f"{__file__}:12"
    assert portable(here) == "tests/chip/conversion/test_conversion.py:12"
    assert portable("/nowhere/python/finds/model.py:3") == "model.py:3"

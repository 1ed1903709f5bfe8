"""Our own quantized ONNX models come back as the program that they were written from."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.chip.conversion.flow import WIDE, Function, converted
from torch import nn

from photomask.chip import IntegerProgram, calibrate, convert, load_recipe, prepare
from photomask.chip.forms.qdq import qdq_model
from photomask.chip.onnx_import import import_qdq
from photomask.chip.operators import OPERATORS
from photomask.chip.program import NumpyEngine
from photomask.chip.target import PRESETS
from photomask.errors import UnsupportedOperatorError

TARGETS = PRESETS | {
    "lines": PRESETS["asic"].model_copy(update={"table_entries": 64}),
    "wide": WIDE,
}
"""`lines` interpolates between the entries of its tables."""
PRESET_PAIRS = [
    ("w8a8", "asic"),
    ("w8a8-signed", "tflite"),
    ("w8a8-symmetric", "deeploy"),
    ("w8a8-po2", "max78000"),
]


class Network(nn.Module):
    """What a convolutional network usually is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = nn.functional.max_pool2d(x, 2)
        x = x + self.depthwise(x)
        x = nn.functional.relu6(self.second(x))
        x = nn.functional.avg_pool2d(torch.cat([x, x], dim=1), 2)
        return self.classifier(x.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize(
    ("recipe", "target"),
    [("w8a8", "asic"), ("w4a8", "asic"), ("w8a8-signed", "tflite"), ("w8a8-po2", "max78000")],
)
def test_a_program_comes_back_with_the_same_integers(recipe: str, target: str):
    torch.manual_seed(0)
    images = torch.randn(8, 2, 8, 8)
    program = converted(Network(), [images], load_recipe(recipe), PRESETS[target])
    again = import_qdq(qdq_model(program), PRESETS[target])
    codes = program.quantize_input(torch.randn(16, 2, 8, 8)).numpy()
    found = NumpyEngine(again).run({again.inputs[0]: codes})[again.outputs[0]]
    expected = NumpyEngine(program).run({program.inputs[0]: codes})[program.outputs[0]]
    np.testing.assert_array_equal(found, expected)
    assert [s.operator.kind for s in again.steps] == [s.operator.kind for s in program.steps]


def program_of(
    model: nn.Module | Callable[..., Any], shapes: list[tuple[int, ...]], recipe: str, target: str
) -> IntegerProgram:
    torch.manual_seed(1)
    module = model if isinstance(model, nn.Module) else Function(model)
    inputs = [torch.randn(16, *shape) for shape in shapes]
    prepared = prepare(module.eval(), load_recipe(recipe), [x[:1] for x in inputs])
    calibrate(prepared, [inputs])
    return convert(prepared, TARGETS[target])


def farthest(program: IntegerProgram, again: IntegerProgram) -> int:
    """Returns the largest distance of two programs' outputs over random codes of every input."""
    random = np.random.default_rng(0)
    codes = {
        name: random.integers(edge.low, edge.high + 1, (64, *edge.shape[1:]))
        for name in program.inputs
        for edge in (program.edges[name],)
    }
    expected = NumpyEngine(program).run(codes)
    found = NumpyEngine(again).run(dict(zip(again.inputs, codes.values(), strict=True)))
    assert len(found) == len(expected)
    return max(
        int(np.abs(a - b).max()) for a, b in zip(found.values(), expected.values(), strict=True)
    )


PAIR, IMAGE = [(3, 4), (3, 4)], [(3, 8, 8)]
CASES: dict[str, tuple[nn.Module | Callable[..., Any], list[tuple[int, ...]]]] = {
    "convolutions": (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, groups=2)),
        IMAGE,
    ),
    "one axis": (nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.Hardtanh(-0.3, 0.4)), [(3, 8)]),
    "linear": (nn.Linear(8, 5), [(8,)]),
    "linear on rows": (nn.Sequential(nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 3)), [(4, 8)]),
    "sum": (lambda x, y: F.relu(x + y), PAIR),
    "difference": (lambda x, y: x - y, PAIR),
    "sum of three": (lambda x, y: x + y * 2 + x.abs(), PAIR),
    "negative sum": (lambda x, y: 0.5 - x - y, PAIR),
    "sum with a constant": (lambda x: x + torch.arange(12.0).reshape(3, 4), [(3, 4)]),
    "product": (lambda x, y: x * y, PAIR),
    "matrix product": (lambda x, y: x @ y.transpose(-1, -2), PAIR),
    "matrix product, scaled": (lambda x, y: x @ y.transpose(-1, -2) / 8, PAIR),
    "concatenation": (lambda x, y: torch.cat([x, 3 * y], 1), PAIR),
    "moves": (
        lambda x, y: x.permute(0, 2, 1)[:, 1::2].flip(-1) - y[:, :, :2].permute(0, 2, 1),
        PAIR,
    ),
    "padding with a value": (
        lambda x: F.pad(x, (1, 2, 0, 1), value=0.7).reshape(len(x), -1),
        [(3, 4)],
    ),
    "maximum": (nn.MaxPool2d(3, 2, padding=1), IMAGE),
    "maximum, ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), [(3, 7, 7)]),
    "average": (nn.AvgPool2d(2), IMAGE),
    "average, padding counted": (nn.AvgPool2d(3, 2, padding=1), IMAGE),
    "average, padding left out": (
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        IMAGE,
    ),
    "average, ceil": (nn.AvgPool2d(3, 2, ceil_mode=True), IMAGE),
    "average of equal parts": (nn.AdaptiveAvgPool2d(2), IMAGE),
    "average of all": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "mean": (lambda x: x.mean(2, keepdim=True), [(3, 4)]),
    "sum over an axis": (lambda x: x.sum(1).abs(), [(3, 4)]),
    "clamp": (lambda x: x.clamp(-0.3, 0.77), [(3, 4)]),
    "gather": (lambda x: x[:, [2, 0, 1, 1]], [(3, 4)]),
    "softmax": (nn.Softmax(-1), [(3, 4)]),
    "table": (lambda x: torch.sigmoid(x).mean(1), [(3, 4)]),
}


@functools.cache
def returned(case: str, recipe: str, target: str) -> frozenset[str]:
    """Returns the kinds of operators of a program that came back with the same integers."""
    program = program_of(*CASES[case], recipe, target)
    again = import_qdq(qdq_model(program), TARGETS[target])
    assert farthest(program, again) == 0, (recipe, target)
    return frozenset(step.operator.kind for step in program.steps)


@pytest.mark.parametrize("case", CASES)
def test_every_form_of_every_preset_comes_back_with_the_same_integers(case: str):
    for recipe, target in PRESET_PAIRS:
        assert returned(case, recipe, target)


@pytest.mark.parametrize("case", ["convolutions", "one axis", "linear on rows"])
def test_weights_and_activations_of_four_bits_come_back(case: str):
    assert returned(case, "w4a4", "asic")
    assert returned(case, "w8a16", "wide")


@pytest.mark.parametrize("case", ["convolutions", "one axis", "linear", "linear on rows"])
def test_scales_of_groups_come_back_as_wider_weights(case: str):
    assert returned(case, "w4a8-group", "asic")


def test_scales_of_many_groups_come_back():
    program = program_of(nn.Linear(200, 4), [(200,)], "w4a8-group", "asic")
    assert any("group_multiplier" in step.tensors for step in program.steps)
    again = import_qdq(qdq_model(program), TARGETS["asic"])
    assert farthest(program, again) == 0
    assert not any("group_multiplier" in step.tensors for step in again.steps)


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    **{name: getattr(torch, name) for name in ("abs", "atan", "cos", "erf", "exp", "neg", "sin")},
    **{name: getattr(F, name) for name in ("celu", "elu", "gelu", "hardsigmoid", "hardswish")},
    **{name: getattr(F, name) for name in ("hardshrink", "leaky_relu", "logsigmoid", "mish")},
    **{name: getattr(F, name) for name in ("selu", "silu", "softplus", "softshrink", "softsign")},
    "log": lambda x: torch.log(x.abs() + 0.1),
    "power": lambda x: x**3,
    "reciprocal": lambda x: 1 / (x.abs() + 0.5),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "tanh": torch.tanh,
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tables_of_all_functions_come_back(function: str):
    def model(x: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[function](x).mean(1)

    for recipe, target in (("w8a8", "onnxruntime"), ("w8a8-po2", "max78000"), ("w8a8", "lines")):
        program = program_of(model, [(3, 4)], recipe, target)
        again = import_qdq(qdq_model(program), TARGETS[target])
        assert farthest(program, again) == 0, (recipe, target)
        tables = [
            [p.tensors[s.tensors["table"]] for s in p.steps if "table" in s.tensors]
            for p in (program, again)
        ]
        for one, other in zip(*tables, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("function", ["gelu", "softplus"])
def test_lines_with_results_of_sixteen_bits_come_back_to_the_precision_of_float32(function: str):
    program = program_of(FUNCTIONS[function], [(3, 4)], "w8a8", "lines")
    assert program.edges[program.outputs[0]].format.bits == 16
    assert farthest(program, import_qdq(qdq_model(program), TARGETS["lines"])) <= 1


NOT_READ: dict[str, tuple[nn.Module, list[tuple[int, ...]], str, set[str]]] = {
    "masked softmax": (
        Function(lambda x: torch.softmax(x.masked_fill(torch.eye(4) != 0, -torch.inf), -1)),
        [(4, 4)],
        "Where",
        set(),
    ),
    "layer norm": (nn.LayerNorm(8), [(3, 8)], "LayerNormalization", {"normalize"}),
    "root-mean-square norm": (nn.RMSNorm(8), [(3, 8)], "ReduceMean", {"normalize"}),
    "other divisors": (nn.AvgPool2d(2, divisor_override=3), IMAGE, "Mul", set()),
}


@pytest.mark.parametrize("case", NOT_READ)
def test_what_is_written_but_not_read_is_refused_by_name(case: str):
    model, shapes, message, kinds = NOT_READ[case]
    program = program_of(model, shapes, "w4a8-group", "asic")
    assert kinds <= {step.operator.kind for step in program.steps}
    with pytest.raises(UnsupportedOperatorError, match=message):
        import_qdq(qdq_model(program), TARGETS["asic"])


def test_embeddings_are_written_but_not_read():
    model, tokens = nn.Embedding(11, 6).eval(), torch.randint(0, 11, (8, 5))
    prepared = prepare(model, load_recipe("w8a8"), tokens[:1])
    calibrate(prepared, tokens)
    program = convert(prepared, TARGETS["asic"])
    assert [step.operator.kind for step in program.steps] == ["embedding"]
    with pytest.raises(UnsupportedOperatorError, match="table of shape"):
        import_qdq(qdq_model(program), TARGETS["asic"])


def test_every_operator_comes_back_or_is_refused():
    back = returned("table", "w8a8", "lines").union(*(returned(n, "w8a8", "asic") for n in CASES))
    refused = {"embedding"}.union(*(kinds for *_, kinds in NOT_READ.values()))
    operators = OPERATORS
    assert back | refused == {operator.model_fields["kind"].default for operator in operators}
    assert not back & refused

"""What capture promises beyond single operators: names, aliasing, purity, and clear refusals."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.chip.conversion.flow import (
    Function,
    Several,
    assert_captured,
    assert_exact_flow,
    inputs_of,
    outputs_of,
    randomize,
)
from torch import Tensor, nn

from photomask.chip.graph import capture
from photomask.errors import CaptureError, DataError, UnsupportedOperatorError

THIS_FILE = Path(__file__).name


def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


class Assigning(nn.Module):
    """Writes into tensors that are read again later, through views and slices."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a = self.first(x)
        before = a * 2
        b = self.relu(a)
        c = before + a  # a is rectified by now
        d = b.view(len(b), -1)
        b += 1  # d sees it
        e = c.clone()
        e[:, 1:3] = x[:, :2]
        e[:, 0] *= 3
        return b, c, d, e


class Preactivated(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x), inplace=True) + self.conv(F.dropout(x, 0.5, self.training))


def test_in_place_operators_change_what_their_aliases_see():
    assert_exact_flow(Assigning(), inputs_of((4, 5, 6)))
    assert_exact_flow(randomize(Preactivated()), inputs_of((4, 5, 6)))


def test_writing_into_the_input_is_no_result_and_reaches_nobody():
    model = Function(lambda x: (F.relu_(x) * 2, x.sum(1)))
    x = torch.randn(3, 4, 5)
    kept = x.clone()
    graph = capture(model, x)
    assert torch.equal(x, kept)
    assert len(graph.outputs) == 2
    assert_captured(model, [x])


def test_computed_weights_are_constants():
    def standardised(x: Tensor) -> Tensor:
        weight = torch.linspace(-1, 1, 108).sin().reshape(3, 4, 3, 3)
        variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True)
        halves = ((weight - mean) * torch.rsqrt(variance + 1e-5)).chunk(2, dim=1)
        return F.conv2d(x, torch.cat([halves[1], halves[0]], 1))

    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3))
    graph = assert_exact_flow(Several(parametrized, standardised), inputs_of((4, 6, 6)))
    assert sum(node.operation.kind == "convolution" for node in graph.nodes) == 2


def test_weights_that_a_hook_computed_can_be_copied():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.utils.weight_norm(nn.Conv2d(4, 6, 3))
    model(torch.randn(1, 4, 6, 6))
    assert_captured(model, inputs_of((4, 6, 6)))


def test_modules_called_twice_have_names_of_their_own():
    layer, norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    model = randomize(nn.Sequential(layer, norm, nn.ReLU(), layer, norm, nn.ReLU(), layer))
    graph = assert_exact_flow(model, inputs_of((4, 5, 5)))
    assert [node.operation.kind for node in graph.nodes[1:]] == ["convolution"] * 3
    graph = assert_captured(nn.Sequential(Twice(layer)), inputs_of((4, 5, 5)))
    assert [node.name for node in graph.nodes][1:] == ["0.layer", "0.layer_1"]


class Twice(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


class TwoInputs(nn.Module):
    """Siamese: one encoder for two inputs of other sizes, results in a dict."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 2)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, object]:
        a, b = (self.encoder(x).mean((2, 3)) for x in (left, right))
        return {"same": self.head(a - b), "parts": [a, (b, None)], "input": left, "again": a}


def test_inputs_and_outputs_may_be_many():
    graph = assert_exact_flow(randomize(TwoInputs()), inputs_of((3, 6, 6), (3, 9, 5)))
    assert graph.inputs == ("left", "right")
    assert graph.outputs[3] == "left"
    assert graph.outputs[1] == graph.outputs[4]


def test_batch_norms_need_no_convolution():
    parts = (
        nn.BatchNorm2d(4),
        nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(120)),
        nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(4)),
        nn.Sequential(nn.Unflatten(2, (5, 1)), nn.BatchNorm3d(4), nn.Flatten(2)),
    )
    norms = [nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)]
    joined = Several(*parts, lambda x: nn.Sequential(*norms)(torch.cat([x, x * 2], 1)))
    joined.norms = nn.ModuleList(norms)
    assert_exact_flow(randomize(joined), inputs_of((4, 5, 6)))


def test_the_model_is_never_changed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(True))
    randomize(model).train()
    model[2].eval()
    state = copy.deepcopy(model.state_dict())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    x = torch.randn(4, 3, 6, 6)
    graph = capture(model, x)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert [module.training for module in model] == [True, True, False, True]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert torch.allclose(graph(x)[0], outputs_of(model.eval(), [x])[0], atol=1e-5)


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.group_norm(x, 2)  # first of two
        y = F.conv_transpose2d(y, torch.ones(4, 2, 2, 2))  # second of two
        return F.relu(y)


def test_all_unsupported_operators_are_named_at_once_with_their_lines():
    with pytest.raises(UnsupportedOperatorError) as caught:
        capture(Unsupported(), torch.randn(2, 4, 5, 5))
    _, *problems = str(caught.value).splitlines()
    assert len(problems) == 2
    assert f"{THIS_FILE}:{line_of('# first ' + 'of two')}" in problems[0]
    assert "group_norm" in problems[0]
    assert "[2, 4, 5, 5]" in problems[0]
    assert f"{THIS_FILE}:{line_of('# second ' + 'of two')}" in problems[1]
    assert "conv_transpose2d" in problems[1]


def test_the_module_of_an_unsupported_operator_is_named():
    with pytest.raises(UnsupportedOperatorError, match=r"in '1': aten.group_norm.*test_capture|1'"):
        capture(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)), torch.randn(1, 4, 3, 3))


REFUSED = {
    "mean over the batch": (lambda x: x - x.mean(0, keepdim=True), "reduces over the batch"),
    "mean over everything": (lambda x: x * x.mean(), "reduces over the batch"),
    "one sample": (lambda x: x[0], "batch axis"),
    "batch moved": (lambda x: x.transpose(0, 1), "batch of a result must be axis 0, but is axis 1"),
    "batch flipped": (lambda x: x.flip(0), "batch axis"),
    "batch statistics": (
        lambda x: F.batch_norm(x, None, None, training=True),
        "statistics of the batch",
    ),
    "random": (lambda x: F.dropout(x, 0.5, training=True), "at random"),
    "weights from activations": (
        lambda x: F.conv2d(x, x[0:1].mean((2, 3), keepdim=True)),
        "depends on the input|batch axis",
    ),
    "variance": (lambda x: x.var(dim=1), "outside the supported set"),
    "positions of maxima": (
        lambda x: F.max_pool2d(x, 2, return_indices=True)[1] + x[:, :, ::2, ::2],
        "no integer form",
    ),
    "one number a sample": (lambda x: x[:, 0, 0, 0] + x[:, 1, 0, 0], "keep an axis"),
    "integers": (lambda x: x.int().float(), "converts activations to torch.int32"),
    "normalisation of a group": (lambda x: F.group_norm(x, 2), "outside the supported set"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_integer_form_is_refused(case: str):
    function, message = REFUSED[case]
    with pytest.raises(UnsupportedOperatorError, match=message):
        capture(Function(function), torch.randn(2, 4, 6, 6))


def test_data_dependent_control_flow_is_refused():
    def branching(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError, match="cannot capture Function"):
        capture(Function(branching), torch.randn(2, 4))


def test_branches_on_the_batch_size_are_refused():
    def branching(x: Tensor) -> Tensor:
        return x * 2 if len(x) == 2 else x

    with pytest.raises(CaptureError, match="may depend on the batch size"):
        capture(Function(branching), torch.randn(2, 4))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x * 2


def test_models_with_a_memory_are_refused():
    with pytest.raises(CaptureError, match="changes its buffer 'seen'"):
        capture(Counting(), torch.randn(2, 4))


@pytest.mark.parametrize(
    "function", [lambda x: 3, lambda x: (x, "text"), lambda x: torch.ones(2, 3), lambda x: None]
)
def test_models_must_return_tensors_of_their_input(function):
    with pytest.raises(CaptureError, match=r"must return|cannot capture"):
        capture(Function(function), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.complex64), "must be real"),
        (torch.zeros(0, 3), "must be real of shape"),
        (torch.zeros(4), "must be real of shape"),
        (torch.full((2, 3), float("nan")), "NaN"),
        ([torch.zeros(2, 3), "text"], "must hold tensors"),
    ],
)
def test_bad_examples_are_refused(example, message: str):
    with pytest.raises(DataError, match=message):
        capture(nn.Linear(3, 2), example)


def test_integers_are_refused_where_the_model_takes_floats():
    with pytest.raises(CaptureError, match="cannot capture Linear"):
        capture(nn.Linear(3, 2), torch.zeros(2, 3, dtype=torch.int64))


def test_wrong_shapes_are_refused():
    with pytest.raises(CaptureError, match="cannot capture Linear"):
        capture(nn.Linear(3, 2), torch.zeros(2, 4))


def test_weights_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0, 1] = float("inf")
    with pytest.raises(DataError, match=r"1 of 6 values of the model's '0.weight'"):
        capture(model, torch.zeros(2, 3))


def test_names_are_plain_strings_that_a_compiler_takes():
    graph = capture(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))
    names = [name for node in graph.nodes for name in (node.name, *node.inputs)]
    assert {type(name) for name in (*names, *graph.outputs)} == {str}

"""The laws of sums: what fits by them fits for every input, and training reaches it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.limited_models import (
    images,
    narrow,
    prepared_small,
    small_model,
    small_recipe,
    worst_inputs,
    worst_sums,
)
from tests.chip.training.learning import task, tiny_model
from torch import nn

from photomask.chip import CEngine, NumpyEngine, TorchEngine, align_to_target, calibrate, convert
from photomask.chip import prepare as prepare_model
from photomask.chip.calibration import fit_biases
from photomask.chip.quantizers import A2Q, A2QPlus, Quantizer
from photomask.chip.sum_limits import (
    BIAS_SHARE,
    Operand,
    capacity,
    limited_quantizers,
    project_onto_l1_ball,
)
from photomask.chip.training import (
    TensorData,
    TrainingSettings,
    WidthStage,
    keep_batch_norms,
    load_weights,
    save_weights,
    set_least_bits,
    train,
)
from photomask.errors import TargetError, UsageError

KINDS = (A2Q, A2QPlus)
SHORT = TrainingSettings(epochs=1, batch_size=16, learning_rate=0.05, quantizer_learning_rate=0.01)


def labels(count: int = 16) -> torch.Tensor:
    return torch.arange(count) % 4


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_codes_within_either_law_of_sums_fit_every_order_of_every_input(data: st.DataObject):
    bits, input_bits = data.draw(st.integers(8, 20)), data.draw(st.integers(2, 6))
    signed = data.draw(st.booleans())
    low = -(1 << (input_bits - 1)) if signed else 0
    high = low + (1 << input_bits) - 1
    zero = data.draw(st.integers(low, high))
    operand, most = Operand(low, high, torch.tensor(zero)), capacity(bits)
    bias = data.draw(st.integers(-most, most))
    room = most - abs(bias)
    total, side = room // int(operand.magnitude), room // operand.width
    if data.draw(st.booleans()):
        positive = data.draw(st.integers(0, total))
        negative = data.draw(st.integers(0, total - positive))
    else:
        positive = data.draw(st.integers(0, side))
        negative = data.draw(st.integers(0, side))
    start = bias - zero * (positive - negative)
    # Each product is smallest, largest or not there yet, and the bias may not be there yet.
    highest = positive * max(high, 0) + negative * max(-low, 0) + max(0, start)
    lowest = -positive * max(-low, 0) - negative * max(high, 0) + min(0, start)
    assert -most - 1 <= lowest
    assert highest <= most


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [11, 10])
def test_a_calibrated_model_fits_and_the_worst_input_reaches_at_most_the_bound(
    kind: type[A2Q], bits: int, symmetric: bool
):
    target = narrow(bits)
    prepared = prepared_small(kind(4), target, symmetric=symmetric)
    program = convert(prepared, target)
    for low, high in worst_sums(program).values():
        assert -(1 << (bits - 1)) <= low
        assert high < 1 << (bits - 1)
    codes = worst_inputs(program)
    name = program.inputs[0]
    edges = dict(NumpyEngine(program).edges({name: codes}))
    accumulators = [edge for edge in program.edges.values() if edge.role == "accumulator"]
    assert accumulators
    for edge in accumulators:
        assert edge.format.bits == bits
        assert np.abs(edges[edge.name]).max() < 1 << (bits - 1)
    for engine in (TorchEngine, CEngine):
        found = engine(program).run({name: codes})
        for output, integers in found.items():
            np.testing.assert_array_equal(np.asarray(integers), edges[output])


def test_without_limits_the_same_model_does_not_fit():
    with pytest.raises(TargetError, match="accumulator of the target 'narrow' has 10"):
        convert(prepared_small(), narrow(10))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_weights_fit_with_batch_norms_distillation_and_narrowing_widths(kind):
    target = narrow(11)
    example, classes = task()
    recipe = small_recipe(kind(4))
    prepared = prepare_model(tiny_model(), recipe, example[:1], target=target)
    calibrate(prepared, example)
    keep_batch_norms(prepared, tiny_model(), example[:1])
    schedule = SHORT.model_copy(
        update={
            "epochs": 2,
            "widths": (WidthStage(epoch=0, bits=6), WidthStage(epoch=1, bits=2)),
            "distillation": 0.5,
            "average_decay": 0.9,
        }
    )
    train(prepared, TensorData(example, classes), schedule)
    align_to_target(prepared.double(), target)
    for low, high in worst_sums(convert(prepared, target)).values():
        assert low >= -(1 << 10)
        assert high < 1 << 10


def test_wider_operands_get_an_accumulator_that_is_wider_by_as_much():
    prepared = prepared_small(A2QPlus(4), narrow(11))
    before = [q.limit * q.scale.detach() for q, _ in limited_quantizers(prepared)]
    assert set_least_bits(prepared, 6)
    calibrate(prepared, images())
    for old, (quantizer, layers) in zip(before, limited_quantizers(prepared), strict=True):
        wider = quantizer.bits + layers[0].input.bits - 8
        assert wider > 0
        most = (capacity(11 + wider) / Operand.of(layers[0].input).width) // 1 * 2
        assert bool((quantizer.limit <= most).all())
        assert bool((quantizer.limit > most / 2 - 2).all())
        # Finer codes with a larger limit: about the same weights fit.
        ratio = quantizer.limit * quantizer.scale.detach() / old
        assert bool(((ratio > 0.25) & (ratio < 4)).all())


def test_a_large_bias_raises_the_scale_so_that_half_of_the_accumulator_stays_free():
    model = small_model()
    with torch.no_grad():
        model.second.bias.copy_(torch.tensor([900.0, -700.0, 0.0, 0.1, 3.0, -50.0]))
    target = narrow(12)
    prepared = prepare_model(model, small_recipe(A2QPlus(4)), images(1), target=target)
    calibrate(prepared, images())
    layer = prepared.layer(prepared.graph.by_name["second"])
    units = layer.bias.detach().double() / layer.unit
    assert float(units.abs().max()) <= BIAS_SHARE * capacity(12) + 1
    for low, high in worst_sums(convert(prepared, target)).values():
        assert low >= -(1 << 11)
        assert high < 1 << 11


def test_a_limit_follows_the_bias_in_each_training_step():
    prepared = prepared_small(A2Q(4), narrow(11))
    quantizer = prepared.weight_quantizer("second")
    assert isinstance(quantizer, A2Q)
    before = quantizer.limit.clone()
    with torch.no_grad():
        prepared.weights["second/bias"].add_(2.0)
    prepared.train()(images(2))
    during = quantizer.limit.clone()
    assert bool((during < before).any())
    prepared.eval()
    fit_biases(prepared)
    assert torch.equal(quantizer.limit, during)


class Tied(nn.Module):
    """One layer that is used twice, behind inputs of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def test_a_tied_weight_fits_the_accumulators_of_all_its_uses():
    torch.manual_seed(0)
    x, target = torch.randn(16, 12), narrow(11)
    prepared = prepare_model(Tied().eval(), small_recipe(A2Q(4)), x[:1], target=target)
    calibrate(prepared, x)
    ((quantizer, layers),) = limited_quantizers(prepared)
    assert len(layers) == 2
    assert all(prepared.weight_quantizer(layer.node.name) is quantizer for layer in layers)
    assert len(worst_sums(convert(prepared, target))) == 2


def test_an_accumulator_in_which_no_weight_fits_is_refused_with_layer_and_law():
    with pytest.raises(TargetError, match=r"weight of 'first'.*p \+ n <= \(M - \|b\|\) / m"):
        prepared_small(A2Q(2), narrow(8), activation_bits=8)


def test_limits_need_a_target():
    with pytest.raises(UsageError, match=r"prepare\(\.\.\., target="):
        prepare_model(small_model(), small_recipe(A2Q(4)), images(1))


def test_other_quantizers_ignore_the_target():
    first, second = prepared_small(), prepared_small(target=narrow(9))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_kept_layers_stay_limited():
    recipe = small_recipe(A2QPlus(4))
    kept = type(recipe)(weight=recipe.weight, activation=recipe.activation, keep=("first",))
    prepared = prepare_model(small_model(), kept, images(1), target=narrow(16))
    quantizer = prepared.weight_quantizer("first")
    assert type(quantizer) is A2QPlus
    assert quantizer.bits == 8
    assert type(prepared.activation_quantizer("first")) is Quantizer


def test_saved_weights_keep_their_limits(tmp_path):
    target = narrow(11)
    prepared = prepared_small(A2QPlus(4), target)
    train(prepared, TensorData(images(), labels()), SHORT)
    save_weights(prepared, tmp_path / "weights")
    other = prepare_model(small_model(), small_recipe(A2QPlus(4)), images(1), target=target)
    load_weights(other, tmp_path / "weights")
    first, second = convert(prepared, target), convert(other, target)
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[name])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), radius=st.floats(0, 20))
def test_the_projection_is_the_nearest_point_of_the_ball(seed: int, size: int, radius: float):
    rows = torch.randn(3, size, generator=torch.Generator().manual_seed(seed)).double()
    found = project_onto_l1_ball(rows, torch.full((3,), radius))
    assert bool((found.abs().sum(dim=1) <= radius + 1e-5).all())
    for row, point in zip(rows, found, strict=True):
        # The nearest point subtracts one threshold, found here by bisection.
        low, high = 0.0, float(row.abs().max())
        for _ in range(80):
            middle = (low + high) / 2
            if float((row.abs() - middle).clamp(min=0).sum()) > radius:
                low = middle
            else:
                high = middle
        threshold = 0.0 if float(row.abs().sum()) <= radius else high
        expected = row.sign() * (row.abs() - threshold).clamp(min=0)
        torch.testing.assert_close(point, expected, rtol=0, atol=1e-5)

"""The order of calls on a prepared model: every function against every state it can be in."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from photomask.chip import (
    PreparedModel,
    align_to_target,
    calibrate,
    compare_with_prepared,
    convert,
    load_recipe,
    load_target,
    prepare,
)
from photomask.chip.accumulators import fit_accumulators, needed_accumulator_bits
from photomask.chip.calibration import fit_biases
from photomask.chip.equalization import correct_biases, equalize, smooth, smooth_products
from photomask.chip.mixed_precision import measure_sensitivity
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.standing import Phase
from photomask.chip.training import TrainingSettings, load_weights, save_weights, train
from photomask.chip.weight_rounding import compensate_rounding, scale_salient_channels
from photomask.errors import OrderError, QuantizerError, UsageError

ASIC = load_target("asic")
NARROW = ASIC.model_copy(update={"accumulator_bits": 10})
DATA = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 4
Call = Callable[[PreparedModel], object]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)
    return nn.Sequential(*layers).eval()


def fresh(recipe: str = "w4a4") -> PreparedModel:
    return prepare(network(), load_recipe(recipe), DATA[:1])


def write_by_hand(prepared: PreparedModel) -> None:
    prepared.weights["0/weight"].data.mul_(2)


def set_weight(prepared: PreparedModel) -> None:
    prepared.set_constant("0", "weight", torch.eye(8))


STATES: dict[str, tuple[Call, ...]] = {
    "prepared": (),
    "calibrated": (lambda p: calibrate(p, DATA),),
    "rewritten": (lambda p: calibrate(p, DATA), lambda p: smooth(p, DATA)),
    "set": (lambda p: calibrate(p, DATA), set_weight),
    "by hand": (lambda p: calibrate(p, DATA), write_by_hand),
    "rounded": (lambda p: calibrate(p, DATA), lambda p: compensate_rounding(p, DATA)),
    "aligned": (lambda p: calibrate(p, DATA), lambda p: align_to_target(p, ASIC)),
}
REWRITES: dict[str, Call] = {
    "smooth": lambda p: smooth(p, DATA),
    "smooth_products": lambda p: smooth_products(p, DATA),
    "equalize": equalize,
    "scale_salient_channels": lambda p: scale_salient_channels(p, DATA, steps=2),
    "set_constant": set_weight,
}
ROUNDS: dict[str, Call] = {
    "compensate_rounding": lambda p: compensate_rounding(p, DATA),
    "reconstruct": lambda p: reconstruct(p, DATA, settings=ReconstructionSettings(iterations=2)),
}
CALLS: dict[str, Call] = {
    **REWRITES,
    **ROUNDS,
    "calibrate": lambda p: calibrate(p, DATA),
    "correct_biases": lambda p: correct_biases(p, DATA),
    "train": lambda p: train(p, (DATA, LABELS), TrainingSettings(epochs=1, batch_size=16)),
    "fit_biases": fit_biases,
    "fit_accumulators": lambda p: fit_accumulators(p, NARROW),
    "needed_accumulator_bits": needed_accumulator_bits,
    "align_to_target": lambda p: align_to_target(p, ASIC),
    "convert": lambda p: convert(p, ASIC),
    "measure_sensitivity": lambda p: measure_sensitivity(p, DATA, weight_bits=(4,)),
}
READS = {"convert", "needed_accumulator_bits"}
NEED_SCALES = {*ROUNDS, *READS, "train", "fit_biases", "fit_accumulators", "align_to_target"}
NEED_FITTING_WEIGHTS = {*(NEED_SCALES - {"fit_biases"}), "correct_biases"}
NEED_FLOAT_WEIGHTS = {*REWRITES, *ROUNDS, "calibrate", "correct_biases", "measure_sensitivity"}
REFUSED = {
    "prepared": NEED_SCALES,
    "calibrated": set(),
    "rewritten": NEED_SCALES,
    "set": NEED_SCALES,
    "by hand": NEED_FITTING_WEIGHTS,
    "rounded": NEED_FLOAT_WEIGHTS,
    "aligned": set(),
}


def model_in(state: str) -> PreparedModel:
    prepared = fresh()
    for step in STATES[state]:
        step(prepared)
    return prepared


@pytest.mark.parametrize("state", STATES)
def test_every_function_is_refused_exactly_where_its_result_would_be_wrong(state: str):
    start = model_in(state)
    for name, call in CALLS.items():
        prepared = copy.deepcopy(start)
        if name in REFUSED[state]:
            with pytest.raises(
                OrderError, match=f"^{name} cannot be called now.*The order of calls is"
            ):
                call(prepared)
            assert same(prepared, start), name
        else:
            call(prepared)


def same(a: PreparedModel, b: PreparedModel) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_ends_the_calibration_and_calibrating_again_is_as_good_as_the_right_order(
    name: str,
):
    late, right = fresh(), fresh()
    for step in (CALLS["calibrate"], REWRITES[name], CALLS["calibrate"]):
        step(late)
    for step in (REWRITES[name], CALLS["calibrate"]):
        step(right)
    found, expected = convert(late, ASIC), convert(right, ASIC)
    assert found.content_hash() == expected.content_hash()


@pytest.mark.parametrize(
    "name", sorted({*ROUNDS, "train", "fit_biases", "fit_accumulators", "correct_biases"})
)
def test_what_moves_weights_or_scales_ends_an_alignment(name: str):
    prepared = model_in("aligned")
    CALLS[name](prepared)
    assert prepared.target is None
    align_to_target(prepared, ASIC)
    assert prepared.target == ASIC


def test_an_error_names_what_was_done_what_is_expected_and_the_order():
    with pytest.raises(OrderError) as caught:
        convert(model_in("rewritten"), ASIC)
    text = str(caught.value)
    assert "smooth ended the calibration" in text
    assert "Done so far: prepare, calibrate, smooth" in text
    assert "Expected: calibrate(prepared, data)" in text
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, QuantizerError)


def write_bias(p: PreparedModel) -> None:
    p.weights["2/bias"].data.add_(5)


def write_gain(p: PreparedModel) -> None:
    with torch.no_grad():
        p.constants_of(p.graph.by_name["1"])["gain"].mul_(3)


@pytest.mark.parametrize("write", [write_by_hand, write_bias, write_gain])
def test_weights_written_by_hand_are_noticed_wherever_they_were_written(write: Call):
    prepared = model_in("calibrated")
    write(prepared)
    with pytest.raises(OrderError, match="changed by hand"):
        convert(prepared, ASIC)
    calibrate(prepared, DATA)
    convert(prepared, ASIC)


def test_a_training_loop_of_ones_own_ends_with_fit_biases():
    prepared = fresh("w4a4-lsq")
    calibrate(prepared, DATA)
    optimizer = torch.optim.SGD(prepared.train().parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(DATA)[0], LABELS).backward()
        optimizer.step()
    prepared.eval()
    with pytest.raises(OrderError, match="fit_biases"):
        convert(prepared, ASIC)
    fit_biases(prepared)
    convert(prepared, ASIC)


def test_a_scale_written_by_hand_ends_an_alignment_but_not_the_calibration():
    prepared = model_in("aligned")
    program = convert(prepared, ASIC)
    quantizer = prepared.activation_quantizer("0")
    quantizer.set_parameters(quantizer.format, quantizer.scale * 1.01, quantizer.zero_point)
    for read in (
        lambda: convert(prepared, ASIC),
        lambda: compare_with_prepared(prepared, program, DATA),
    ):
        with pytest.raises(OrderError, match="aligned to 'asic'"):
            read()
    align_to_target(prepared, ASIC)
    convert(prepared, ASIC)


def reloaded(prepared: PreparedModel) -> PreparedModel:
    other = fresh()
    other.load_state_dict(prepared.state_dict())
    return other


@pytest.mark.parametrize(
    "carry",
    [copy.deepcopy, reloaded, lambda p: p.double(), lambda p: p.double().float()],
    ids=["deepcopy", "state_dict", "double", "double and back"],
)
def test_what_was_done_survives_copies_files_and_dtypes(carry: Callable):
    for state, phase in (
        ("prepared", Phase.PREPARED),
        ("calibrated", Phase.CALIBRATED),
        ("rounded", Phase.ROUNDED),
    ):
        prepared = carry(model_in(state))
        assert prepared.standing.phase(prepared) is phase
    convert(carry(model_in("aligned")), ASIC)
    with pytest.raises(OrderError, match="changed by hand"):
        convert(carry(model_in("by hand")), ASIC)


def test_files_of_earlier_versions_are_calibrated_where_they_hold_scales():
    state = model_in("calibrated").state_dict()
    del state["standing.record"]
    prepared = fresh()
    prepared.load_state_dict(state)
    convert(prepared, ASIC)


def test_saved_weights_keep_what_was_done(tmp_path):
    save_weights(model_in("rounded"), tmp_path / "weights")
    prepared = fresh()
    load_weights(prepared, tmp_path / "weights")
    with pytest.raises(OrderError, match="rounded already"):
        smooth(prepared, DATA)
    convert(prepared, ASIC)


def test_a_call_that_fails_before_it_changes_anything_leaves_the_calibration():
    prepared = model_in("calibrated")
    with pytest.raises(Exception, match="one sample"):
        smooth(prepared, [])
    convert(prepared, ASIC)


def test_calibrating_again_forgets_what_was_measured_before():
    twice, once = fresh("w8a8"), fresh("w8a8")
    calibrate(twice, DATA * 100)
    calibrate(twice, DATA)
    calibrate(once, DATA)
    assert same(twice, once)


def test_a_wrong_shape_is_refused_and_nothing_is_changed():
    prepared = model_in("calibrated")
    with pytest.raises(UsageError, match=r"shape \[8, 8\], got \[2, 2\]"):
        prepared.set_constant("0", "weight", Tensor([[1, 2], [3, 4]]))
    convert(prepared, ASIC)

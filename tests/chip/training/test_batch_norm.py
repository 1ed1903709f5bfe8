import copy

import pytest
import torch
import torch.nn.functional as F
from tests.chip.training.learning import (
    SHORT,
    LearnedScale,
    Tiny,
    assert_equal_states,
    codes_of,
    prepared_model,
    recipe,
    task,
    tiny_model,
)
from torch import Tensor, nn

from photomask.chip import (
    PreparedModel,
    Recipe,
    align_to_target,
    calibrate,
    convert,
    load_target,
    prepare,
)
from photomask.chip.equalization import equalize
from photomask.chip.quantizers import LSQ, SAWB, DoReFa, PerChannel, Ternary
from photomask.chip.training import (
    TrainingSettings,
    fold_batch_norms,
    freeze_batch_norms,
    keep_batch_norms,
    measure_batch_norms,
    train,
)
from photomask.errors import UsageError

FINE_EDGES = LearnedScale(16, symmetric=False)
FINE = Recipe(
    "fine",
    weight=LearnedScale(16, granularity=PerChannel(), narrow=True),
    activation=FINE_EDGES,
)


def with_norms(bits: int = 4) -> PreparedModel:
    prepared = prepared_model(bits)
    assert keep_batch_norms(prepared, tiny_model(), task()[0][:1]) == ("stem.0", "body.0")
    return prepared


def outputs(prepared: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return prepared(x)[0]


def test_evaluation_is_the_same_with_norms_kept_and_folded_again():
    images, _ = task()
    folded, live = prepared_model().eval(), with_norms().eval()
    assert torch.allclose(outputs(folded, images), outputs(live, images), atol=1e-4)
    kept, codes = outputs(live, images), codes_of(live)
    fold_batch_norms(live)
    assert not live.batch_norms
    assert torch.allclose(outputs(live, images), kept, atol=1e-5)
    assert all(torch.equal(after, codes[name]) for name, after in codes_of(live).items())
    assert live.state_dict().keys() == folded.state_dict().keys()


def test_training_normalises_as_the_model_itself_does():
    """With 16 bits everywhere, outputs, gradients and running statistics are the model's own."""
    images, labels = task()
    model = tiny_model()
    prepared = prepare(model, FINE, images[:1])
    calibrate(prepared, 4 * images)  # the batch's statistics reach further than the running ones
    keep_batch_norms(prepared, model, images[:1])
    for quantizer in prepared.weight_quantizers.values():
        # The largest weight is at the end of its range, where the gradient stops: make room.
        quantizer.set_parameters(quantizer.format, 1.01 * quantizer.scale, quantizer.zero_point)  # type: ignore[operator]
    model.train()
    prepared.train()
    expected, found = model(images), prepared(images)[0]
    assert torch.allclose(found, expected, atol=2e-3)
    F.cross_entropy(expected, labels).backward()
    F.cross_entropy(found, labels).backward()
    for layer, norm in (("stem.0", model.stem[1]), ("body.0", model.body[1])):  # type: ignore[index]
        key = layer.replace(".", "/")
        live = prepared.batch_norms[key]
        assert torch.allclose(live.variance, norm.running_var, rtol=2e-3)
        bias = getattr(model.get_submodule(layer), "bias", None)
        offset = 0 if bias is None else bias.detach()
        assert torch.allclose(live.mean, norm.running_mean - offset, atol=2e-3)
        weight = prepared.weights[f"{key}/weight"].grad
        own = model.get_submodule(layer).weight.grad
        assert weight is not None
        assert torch.allclose(weight, own, atol=0.02 * float(own.abs().max()))
        assert torch.allclose(live.gain.grad, norm.weight.grad, atol=2e-3)
        assert torch.allclose(live.shift.grad, norm.bias.grad, atol=2e-3)


def test_frozen_norms_are_those_of_evaluation_and_still_learn():
    images, labels = task()
    prepared = with_norms()
    freeze_batch_norms(prepared)
    before = prepared.batch_norms["stem/0"].mean.clone()
    found = prepared.train()(images)[0]
    assert torch.equal(prepared.batch_norms["stem/0"].mean, before)
    assert torch.equal(found, outputs(prepared.eval(), images))
    F.cross_entropy(found, labels).backward()
    for parameter in prepared.batch_norms.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any())


def test_training_ends_with_a_model_whose_program_is_that_of_its_evaluation():
    prepared = with_norms()
    settings = TrainingSettings.model_validate(
        SHORT.model_dump() | {"epochs": 4, "frozen_batch_norm_share": 0.5, "average_decay": 0.5}
    )
    report = train(prepared, task(), settings)
    assert report.epochs[-1].loss < report.epochs[0].loss
    assert not prepared.batch_norms
    unfolded = with_norms()
    fold_batch_norms(unfolded)
    program = convert(prepared, load_target("asic"))
    assert (
        program.provenance["recipe"] == convert(unfolded, load_target("asic")).provenance["recipe"]
    )


def changed_norms(prepared: PreparedModel) -> None:
    """Gives norms what training might: other gains, one below 0, other statistics."""
    with torch.no_grad():
        for norm in prepared.batch_norms.values():
            norm.gain.mul_(1.3)  # type: ignore[operator]
            norm.gain[1] *= -1  # type: ignore[operator,index]
            norm.shift.add_(0.1)  # type: ignore[operator]
            norm.variance.mul_(0.8)  # type: ignore[operator]


@pytest.mark.parametrize(
    "weight",
    [
        LSQ(3, granularity=PerChannel()),
        Ternary(),
        SAWB(4),
        DoReFa(4),
        DoReFa(4, granularity=PerChannel()),
    ],
)
def test_folding_for_good_keeps_what_every_quantizer_gives(weight):
    """With a scale per channel, which leaves the norm, and without, which does not."""
    images, _ = task()
    prepared = prepare(
        tiny_model(), Recipe("own", weight=weight, activation=FINE_EDGES), images[:1]
    )
    calibrate(prepared, images)
    keep_batch_norms(prepared, tiny_model(), images[:1])
    moves = [norm.scales_move for norm in prepared.batch_norms.values()]
    assert moves == [isinstance(weight, (LSQ, Ternary))] * 2
    changed_norms(prepared)
    expected = outputs(prepared.eval(), images)
    with pytest.raises(UsageError, match="fold_batch_norms"):
        convert(prepared, load_target("asic"))
    with pytest.raises(UsageError, match="fold_batch_norms"):
        align_to_target(prepared, load_target("asic"))
    fold_batch_norms(prepared)
    assert torch.allclose(outputs(prepared, images), expected, atol=5e-3)
    convert(prepared, load_target("asic"))


def test_codes_follow_the_weight_and_not_its_norm():
    prepared = with_norms(2)
    before = codes_of(prepared)
    changed_norms(prepared)
    after = codes_of(prepared)
    for layer in ("stem.0", "body.0"):
        sign = torch.ones(4).index_fill(0, torch.tensor([1]), -1.0)[:, None, None, None]
        assert torch.equal(after[layer], before[layer] * sign)


def test_a_scale_learns_as_it_does_without_a_norm():
    """The gradient of a step is that of LSQ on the plain weight, whatever the norm's factor."""
    images, labels = task()
    recipe = Recipe("own", weight=LSQ(2, granularity=PerChannel()), activation=FINE_EDGES)
    model = tiny_model()
    prepared = prepare(model, recipe, images[:1])
    calibrate(prepared, images)
    keep_batch_norms(prepared, model, images[:1])
    weight = prepared.weights["body/0/weight"]
    quantizer = prepared.weight_quantizer("body.0")
    # With every weight inside the range, what passes to it is the gradient behind the quantizer.
    quantizer.rescale(torch.full((4,), 4.0))
    assert torch.equal(quantizer.quantize(weight), codes_of(prepared)["body.0"])
    F.cross_entropy(prepared.train()(images)[0], labels).backward()
    assert isinstance(quantizer, LSQ)
    found, own = quantizer.step.grad, weight.grad
    assert found is not None
    assert own is not None
    ratio = (weight / quantizer.scale_for(weight)).detach()
    assert bool(((ratio > -2) & (ratio < 1)).all())
    expected = ((ratio.round() - ratio) * own).flatten(1).sum(1) * quantizer.gradient_factor(weight)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_resumed_training_with_norms_ends_with_the_same_bits(tmp_path):
    from tests.chip.training.test_checkpoint import Kill, KilledError

    settings = SHORT.model_copy(update={"epochs": 3, "average_decay": 0.9})
    whole, first, second = (with_norms() for _ in range(3))
    train(whole, task(), settings, callbacks=[Kill(None)])
    with pytest.raises(KilledError):
        train(first, task(), settings, callbacks=[Kill(2)], checkpoint=tmp_path / "run")
    train(
        second, task(), settings, callbacks=[Kill(None)], checkpoint=tmp_path / "run", resume=True
    )
    assert_equal_states(whole, second)


def test_a_dead_channel_does_no_harm():
    model = tiny_model()
    with torch.no_grad():
        model.stem[1].weight[1] = 0.0  # type: ignore[index]
        model.stem[1].running_var[2] = 1e-12  # type: ignore[index]
    images, _ = task()
    prepared = prepare(model, recipe(), images[:1])
    calibrate(prepared, images)
    keep_batch_norms(prepared, model, images[:1])
    train(prepared, task(), SHORT)
    assert bool(torch.isfinite(outputs(prepared, images)).all())
    convert(prepared, load_target("asic"))


def test_what_would_be_lost_is_refused():
    prepared = with_norms()
    with pytest.raises(UsageError, match="fold_batch_norms"):
        equalize(prepared)
    with pytest.raises(UsageError, match="fold_batch_norms"):
        prepared.set_constant("stem.0", "weight", torch.zeros(4, 1, 3, 3))
    images, _ = task()
    changed = prepared_model()
    equalized = {name: value * 1.5 for name, value in changed.weights.items()}
    with torch.no_grad():
        for name, value in equalized.items():
            changed.weights[name].copy_(value)
    with pytest.raises(UsageError, match="no batch norm"):
        keep_batch_norms(changed, Tiny().eval(), images[:1])


def test_measured_statistics_are_those_of_the_batches_and_no_code_changes():
    """With 16 bits everywhere they are what PyTorch's own norms gather over the same batches."""
    images, _ = task()
    batches = [[part] for part in (4 * images).split(16)]
    model = tiny_model()
    prepared = prepare(model, FINE, images[:1])
    calibrate(prepared, 4 * images)
    keep_batch_norms(prepared, model, images[:1])
    for norm in prepared.batch_norms.values():
        norm.mean.add_(3.0)  # type: ignore[operator]
        norm.variance.mul_(1.7)  # type: ignore[operator]
    for quantizer in prepared.weight_quantizers.values():
        quantizer.set_parameters(quantizer.format, 1.01 * quantizer.scale, quantizer.zero_point)  # type: ignore[operator]
    before = codes_of(prepared)
    measure_batch_norms(prepared.eval(), batches)
    assert not prepared.training
    for norm in (model.stem[1], model.body[1]):  # type: ignore[index]
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for (part,) in batches:
            model(part)
    for layer, norm in (("stem.0", model.stem[1]), ("body.0", model.body[1])):  # type: ignore[index]
        live = prepared.batch_norms[layer.replace(".", "/")]
        bias = getattr(model.get_submodule(layer), "bias", None)
        offset = 0 if bias is None else bias.detach()
        assert torch.allclose(live.variance, norm.running_var, rtol=2e-3)
        assert torch.allclose(live.mean, norm.running_mean - offset, atol=2e-3)
        assert live.momentum == 0.1
        assert torch.equal(codes_of(prepared)[layer], before[layer])


def test_training_ends_with_statistics_of_its_last_weights():
    prepared, stale = with_norms(), with_norms()
    for norm in stale.batch_norms.values():
        norm.momentum = 0.0  # remembers the first weights for ever
        norm.mean.add_(5.0)  # type: ignore[operator]
    images, labels = task()
    for model in (prepared, stale):
        train(model, task(), SHORT.model_copy(update={"epochs": 6, "average_decay": 0.5}))
    right, wrong = (
        (outputs(model, images).argmax(1) == labels).float().mean() for model in (prepared, stale)
    )
    assert right > 0.8
    assert wrong > 0.8


def test_frozen_statistics_are_not_measured_and_no_batches_are_refused():
    images, _ = task()
    prepared = with_norms()
    freeze_batch_norms(prepared)
    before = copy.deepcopy(prepared.state_dict())
    measure_batch_norms(prepared, [[images]])
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
    with pytest.raises(UsageError, match="at least one batch"):
        measure_batch_norms(with_norms(), [])


def test_a_batch_that_cannot_be_computed_changes_nothing():
    images, _ = task()
    prepared = with_norms().eval()
    before = copy.deepcopy(prepared.state_dict())
    with pytest.raises(RuntimeError):
        measure_batch_norms(prepared, [[images], [images[:, :, 0]]])
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
    assert {norm.momentum for norm in prepared.batch_norms.values()} == {0.1}
    assert not prepared.training

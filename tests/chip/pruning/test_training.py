import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from photomask.chip import calibrate, convert, prepare
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.pruning import (
    Blocks,
    GraNet,
    Magnitude,
    NofM,
    Pruner,
    PruningSchedule,
    RigL,
    SparseRefinement,
    Wanda,
    prune,
)
from photomask.chip.quantizers import Binary, PerChannel, Quantizer
from photomask.chip.recipe import Recipe
from photomask.chip.training import (
    Callback,
    TrainingSettings,
    WidthStage,
    keep_batch_norms,
    load_weights,
    save_weights,
    train,
)
from photomask.errors import PruningError, TrainingError, UsageError

TWO_OF_FOUR = NofM(kept=2, group=4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.second(x)).mean(dim=(2, 3)))


def data(count=64):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(count) % 4
    x = torch.randn(count, 4, 5, 5, generator=generator)
    x[torch.arange(count), y] += 1.5
    return x, y


def ready(recipe="w4a4-lsq", norms=True):
    torch.manual_seed(0)
    model = Net().eval()
    x, _ = data()
    prepared = prepare(model, recipe, x[:1])
    calibrate(prepared, x[:32])
    if norms:
        keep_batch_norms(prepared, model, x[:1])
    return prepared


def schedule(epochs=4, **settings):
    return TrainingSettings(
        epochs=epochs,
        batch_size=16,
        learning_rate=0.05,
        pruning=PruningSchedule(interval=2, **settings),
    )


def integers(prepared):
    program = convert(prepared, "asic")
    return {
        step.node: effective_weight(program.parameters(step))
        for step in program.steps
        if isinstance(step.operator, (Convolution, Linear))
    }


@pytest.mark.parametrize(
    ("pruner", "least"),
    [
        (Magnitude(0.8, scope="global"), 0.8),
        (Magnitude(0.75, pattern=Blocks(outputs=4, inputs=4)), 0.7),
        (GraNet(0.8), 0.8),
        (RigL(0.8), 0.8),
        (Magnitude(pattern=TWO_OF_FOUR), 0.5),
        (SparseRefinement(pattern=TWO_OF_FOUR), 0.5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("norms", [True, False])
def test_a_training_ends_with_the_sparsity_in_the_integers(pruner, least, norms):
    prepared = ready(norms=norms)
    train(prepared, data(), schedule(), pruner=pruner)
    found = integers(prepared)
    masks = {node.name: mask.numpy() for node, mask in prepared.pruned_layers()}
    assert set(masks) == {"first", "second", "head"}
    for name, mask in masks.items():
        assert not found[name][~mask].any()
        if isinstance(pruner.pattern, NofM):
            groups = found[name].reshape(len(mask), -1, 4, *mask.shape[2:])
            assert ((groups != 0).sum(axis=2) <= 2).all()
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    assert pruned >= least * sum(mask.size for mask in masks.values()) - 2


class Watch(Callback):
    def __init__(self):
        self.counts = []
        self.masks = []
        self.held = []

    def on_step_end(self, module, step):
        pairs = module.pruned_layers()
        self.counts.append(sum(int((~mask).sum()) for _, mask in pairs))
        self.masks.append({node.name: mask.clone() for node, mask in pairs})
        self.held.append(all(not module.parameter_of(node)[~mask].any() for node, mask in pairs))


def test_the_sparsity_grows_along_the_cubic_ramp():
    watch = Watch()
    settings = schedule(epochs=4, begin=0.25, end=0.75)
    train(ready(), data(), settings, pruner=Magnitude(0.8), callbacks=[watch])
    size = 4 * 8 * 9 + 8 * 8 * 9 + 8 * 4
    first = 4
    last = 12
    for step in range(16):
        at = min(last, step - (step - first) % 2)
        t = (at - first) / (last - first)
        expected = 0.0 if step < first else 0.8 * (1 - (1 - t) ** 3)
        assert watch.counts[step] == pytest.approx(expected * size, abs=3)
    assert all(watch.held)


def test_regrown_weights_are_those_with_large_gradients_and_the_count_stays():
    watch = Watch()
    train(ready(), data(), schedule(end=1.0), pruner=RigL(0.8, regrowth=0.5), callbacks=[watch])
    assert len(set(watch.counts)) == 1
    assert any(
        not torch.equal(watch.masks[0][name], watch.masks[-1][name]) for name in watch.masks[0]
    )


def test_hidden_weights_go_on_learning_until_the_end():
    watch, prepared = Watch(), ready()
    train(
        prepared,
        data(),
        schedule(),
        pruner=SparseRefinement(pattern=TWO_OF_FOUR),
        callbacks=[watch],
    )
    assert not any(watch.held)
    for node, mask in prepared.pruned_layers():
        assert not prepared.parameter_of(node)[~mask].any()
    assert any(
        not torch.equal(watch.masks[0][name], watch.masks[-1][name]) for name in watch.masks[0]
    )


@pytest.mark.parametrize(
    "pruner", [GraNet(0.7), RigL(0.7), SparseRefinement(pattern=TWO_OF_FOUR)], ids=repr
)
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, pruner):
    whole, parts = ready(), ready()
    train(whole, data(), schedule(), pruner=pruner)

    class Stop(Callback):
        def on_epoch_start(self, module, epoch):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            parts, data(), schedule(), pruner=pruner, checkpoint=tmp_path / "c", callbacks=[Stop()]
        )
    again = ready()
    train(
        again,
        data(),
        schedule(),
        pruner=pruner,
        checkpoint=tmp_path / "c",
        resume=True,
        callbacks=[Callback()],
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_checkpoint_belongs_to_its_pruner(tmp_path):
    train(ready(), data(), schedule(1), pruner=GraNet(0.7), checkpoint=tmp_path / "c")
    with pytest.raises(TrainingError, match=r"pruner is 'GraNet.*sparsity=0.7.*sparsity=0.8"):
        train(
            ready(), data(), schedule(1), pruner=GraNet(0.8), checkpoint=tmp_path / "c", resume=True
        )


def test_saved_weights_hold_their_masks(tmp_path):
    prepared = ready()
    train(prepared, data(), schedule(1, end=0.5), pruner=Magnitude(0.7))
    save_weights(prepared, tmp_path / "w")
    fresh = ready(norms=False)
    load_weights(fresh, tmp_path / "w")
    assert len(fresh.pruned_layers()) == 3
    for name, weight in integers(prepared).items():
        assert np.array_equal(integers(fresh)[name], weight)


def test_weights_pruned_before_stay_pruned_in_a_training_without_a_pruner():
    model, (x, y) = Net().eval(), data()
    prepared = prepare(model, "w8a8", x[:1])
    prune(prepared, Magnitude(0.8))
    calibrate(prepared, x)
    before = {node.name: mask.clone() for node, mask in prepared.pruned_layers()}
    train(prepared, (x, y), TrainingSettings(epochs=2, batch_size=16))
    for node, mask in prepared.pruned_layers():
        assert torch.equal(mask, before[node.name])
        assert not integers(prepared)[node.name][~mask.numpy()].any()


def test_pruning_before_quantization_uses_wide_stages():
    prepared = ready()
    widths = (WidthStage(epoch=0, bits=16), WidthStage(epoch=2, bits=4))
    settings = schedule(end=0.5).model_copy(update={"widths": widths})
    report = train(prepared, data(), settings, pruner=Magnitude(0.6))
    assert [epoch.least_bits for epoch in report.epochs] == [16, 16, 4, 4]
    for node, mask in prepared.pruned_layers():
        assert not integers(prepared)[node.name][~mask.numpy()].any()


@pytest.mark.parametrize(
    ("pruner", "error", "message"),
    [
        (Wanda(0.5), UsageError, "measures inputs, which a training does not keep"),
        (
            Magnitude(pattern=NofM(kept=2, group=16), layers=["head"]),
            PruningError,
            "'head'.*sums 8 input channels.*16",
        ),
    ],
    ids=repr,
)
def test_a_pruner_that_cannot_train_is_refused_before_the_first_step(pruner, error, message):
    prepared = ready()
    before = copy.deepcopy(prepared.state_dict())
    with pytest.raises(error, match=message):
        train(prepared, data(), schedule(), pruner=pruner)
    assert all(torch.equal(before[name], x) for name, x in prepared.state_dict().items())


def test_a_quantizer_without_zero_is_refused_before_the_first_step():
    recipe = Recipe(weight=Binary(granularity=PerChannel()), activation=Quantizer(8))
    prepared = ready(recipe)
    with pytest.raises(PruningError, match="Binary has no code for 0"):
        train(prepared, data(), schedule(), pruner=RigL(0.5))
    assert not prepared.pruned_layers()


def test_a_pruner_that_empties_a_layer_stops_the_training_and_the_epoch_is_undone():
    class Late(Pruner):
        def update(self, weights, moment):
            masks = super().update(weights, moment)
            if moment.progress < 1:
                return masks
            return [m & (w.layer != "head") for w, m in zip(weights, masks, strict=True)]

    prepared = ready()
    with pytest.raises(PruningError, match=r"'head'.*cuts the network"):
        train(prepared, data(), schedule(), pruner=Late(0.5))
    (mask,) = [mask for node, mask in prepared.pruned_layers() if node.name == "head"]
    assert bool(mask.any())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"begin": 0.7, "end": 0.6}, "must end later than it begins"),
        ({"begin": -0.1}, "begin"),
        ({"end": 1.5}, "end"),
        ({"interval": 0}, "interval"),
    ],
)
def test_impossible_schedules_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        PruningSchedule(**settings)


def test_the_last_moment_has_the_whole_sparsity_whatever_the_interval():
    for steps in (1, 2, 7, 100, 101):
        for interval in (1, 3, 50, 1000):
            plan = PruningSchedule(begin=0.1, end=0.9, interval=interval)
            found = [plan.moment(step, steps, 0.8) for step in range(steps)]
            moments = [moment for moment in found if moment is not None]
            assert moments[-1].sparsity == pytest.approx(0.8)
            assert [m.sparsity for m in moments] == sorted(m.sparsity for m in moments)

import pytest
import torch
from tests.chip.training.learning import codes_of, prepared_model, task, tiny_model

from photomask.chip import PreparedModel
from photomask.chip.training import ProgressiveFreezing, TrainingSettings, keep_batch_norms, train
from photomask.chip.training.freezing import divergence
from photomask.errors import TrainingError, UsageError

SETTINGS = TrainingSettings(
    epochs=3, batch_size=16, learning_rate=0.2, quantizer_learning_rate=1e-3
)


class Recording(ProgressiveFreezing):
    """Remembers what was frozen, and which codes there were, at the start of every epoch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.history: list[tuple[list[str], dict[str, float], dict[str, torch.Tensor]]] = []

    def on_epoch_start(self, prepared: PreparedModel, epoch: int) -> None:
        instability = self.instability
        super().on_epoch_start(prepared, epoch)
        self.history.append((list(self.frozen), instability, codes_of(prepared)))


def test_layers_freeze_in_stages_the_most_unstable_first():
    images, labels = task()
    prepared = prepared_model()
    freezing = Recording(images[:16], 3, interval=1)
    train(prepared, (images, labels), SETTINGS, callbacks=[freezing])
    assert [len(frozen) for frozen, _, _ in freezing.history] == [0, 1, 2]
    assert not freezing.history[0][1]
    for epoch in (1, 2):
        frozen, instability, codes = freezing.history[epoch]
        assert frozen[epoch - 1] == max(instability, key=instability.__getitem__)
        final = codes_of(prepared)
        assert all(torch.equal(final[name], codes[name]) for name in frozen)
    free = set(codes_of(prepared)) - set(freezing.frozen)
    assert len(free) == 1
    assert any(not torch.equal(codes_of(prepared)[n], freezing.history[0][2][n]) for n in final)


def test_a_batch_norm_beside_a_frozen_weight_scales_it_no_more():
    images, labels = task()
    prepared = prepared_model()
    keep_batch_norms(prepared, tiny_model(), images[:1])
    freezing = Recording(images[:16], 3, interval=1)
    train(prepared, (images, labels), SETTINGS, callbacks=[freezing])
    for name in freezing.history[2][0]:
        assert torch.equal(codes_of(prepared)[name], freezing.history[2][2][name])


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    before, after = torch.randn(2, 3, 400, dtype=torch.float64)
    after = 2 * after + 1
    expected = torch.stack(
        [
            torch.distributions.kl_divergence(
                torch.distributions.Normal(a.mean(), a.std(correction=0)),
                torch.distributions.Normal(b.mean(), b.std(correction=0)),
            )
            for a, b in zip(before, after, strict=True)
        ]
    ).mean()
    torch.testing.assert_close(divergence(before, after), expected)
    assert divergence(before, before) == 0
    assert divergence(torch.zeros(2, 5), torch.zeros(2, 5)) == 0


def test_what_was_measured_survives_a_resume():
    freezing = ProgressiveFreezing(task()[0][:8], 3, interval=1)
    prepared = prepared_model()
    for step in range(3):
        freezing.on_step_end(prepared, step)
        next(iter(prepared.weights.values())).data.mul_(1.5)
    other = ProgressiveFreezing(task()[0][:8], 3, interval=1)
    other.restore(freezing.state())
    assert other.instability == freezing.instability
    for callback in (freezing, other):
        callback.on_epoch_start(prepared, 1)
    assert other.frozen == freezing.frozen != []
    assert max(freezing.state()["sums"], default=None) is None  # a new stage measures anew


def test_a_stage_without_a_measurement_is_an_error():
    freezing = ProgressiveFreezing(task()[0][:8], 3, interval=1000)
    with pytest.raises(TrainingError, match="interval of 1000 steps is too long"):
        freezing.on_epoch_start(prepared_model(), 1)


@pytest.mark.parametrize("options", [{"stages": 1}, {"stages": 5}, {"interval": 0}])
def test_impossible_schedules_are_refused(options: dict[str, int]):
    with pytest.raises(UsageError, match="freezing needs"):
        ProgressiveFreezing(task()[0][:8], 3, **options)

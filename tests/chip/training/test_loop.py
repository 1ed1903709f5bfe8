from pathlib import Path

import numpy
import pytest
import torch
from tests.chip.training.learning import (
    SHORT,
    LearnedScale,
    assert_equal_states,
    prepared_model,
    prepared_with,
    recipe,
    state_of,
    task,
    tiny_model,
)
from torch import Tensor, nn

from photomask.chip import NumpyEngine, Quantizer, Recipe, convert, load_target, prepare
from photomask.chip.quantizers import LSQ, PerChannel
from photomask.chip.training import (
    Callback,
    TensorData,
    TrainingSettings,
    WidthStage,
    distillation_loss,
    parameter_groups,
    train,
)
from photomask.errors import DataError, QuantizerError, TrainingError, UsageError


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate(SHORT.model_dump() | changes)


def loss_of(prepared: nn.Module) -> float:
    images, labels = task()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(prepared(images)[0], labels))


def test_a_users_own_loop_learns_weights_biases_and_scales():
    prepared, (images, labels) = prepared_model(), task()
    before, first = state_of(prepared), loss_of(prepared)
    groups = parameter_groups(
        prepared, learning_rate=0.2, quantizer_learning_rate=1e-3, weight_decay=0.0
    )
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    prepared.train()
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(images)[0], labels)
        loss.backward()
        optimizer.step()
    assert loss_of(prepared.eval()) < first - 0.1
    for name, parameter in prepared.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_training_lowers_the_loss_and_leaves_a_model_to_convert():
    prepared, data = prepared_model(), task()
    first = loss_of(prepared)
    report = train(prepared, data, settings(epochs=5))
    assert loss_of(prepared) < first - 0.1
    assert [record.epoch for record in report.epochs] == list(range(5))
    assert report.epochs[-1].loss < report.epochs[0].loss
    assert "least bits" in str(report)
    assert not prepared.training
    program = convert(prepared, load_target("asic"))
    codes = program.quantize_input(data[0])
    found = NumpyEngine(program).run({program.inputs[0]: codes.numpy()})[program.outputs[0]]
    with torch.no_grad():
        quantizer = prepared.activation_quantizer(program.outputs[0])
        expected = quantizer.quantize(prepared(data[0])[0]).numpy()
    # The same up to the rounding of the rescaling multipliers, which moves few 4-bit codes.
    assert numpy.median(abs(found - expected)) <= 2**16 * 0.002


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    models = [prepared_model() for _ in range(3)]
    torch.manual_seed(1)
    train(models[0], task(), SHORT)
    torch.manual_seed(2)
    train(models[1], task(), SHORT)
    train(models[2], task(), settings(seed=1))
    assert_equal_states(models[0], models[1])
    assert state_of(models[0]).keys() == state_of(models[2]).keys()
    weight = next(iter(models[0].weights))
    assert not torch.equal(models[0].weights[weight], models[2].weights[weight])


def test_training_leaves_the_random_state_alone():
    prepared, state = prepared_model(), torch.random.get_rng_state()
    train(prepared, task(), settings(epochs=1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_widths_shrink_and_every_scale_is_fitted_again():
    seen: list[tuple[set[int], float]] = []

    class Watch(Callback):
        def on_epoch_start(self, prepared: nn.Module, epoch: int) -> None:
            quantizers = [q for q in prepared.modules() if isinstance(q, Quantizer)]
            weight = quantizers[0]
            assert all(q.format.bits == q.bits for q in quantizers)
            seen.append(({q.bits for q in quantizers}, float(weight.scale.detach().mean())))

    stages = (WidthStage(epoch=0, bits=8), WidthStage(epoch=1, bits=4), WidthStage(epoch=2, bits=2))
    prepared = prepared_model(2)
    report = train(prepared, task(), settings(epochs=3, widths=stages), callbacks=[Watch()])
    assert [bits for bits, _ in seen] == [{8, 16}, {4, 16}, {2, 16}]
    scales = [scale for _, scale in seen]
    assert scales[1] / scales[0] == pytest.approx(127 / 7, rel=0.2)
    assert scales[2] / scales[1] == pytest.approx(7 / 1, rel=0.2)
    assert [record.least_bits for record in report.epochs] == [8, 4, 2]


def test_scales_rest_in_the_last_epochs():
    scales: list[Tensor] = []

    class Watch(Callback):
        def on_epoch_end(self, prepared: nn.Module, epoch: int, loss: float) -> None:
            scales.append(next(iter(prepared.weight_quantizers.parameters())).detach().clone())

    train(
        prepared_model(),
        task(),
        settings(epochs=4, frozen_scale_share=0.5),
        callbacks=[Watch()],
    )
    assert not torch.equal(scales[0], scales[1])
    assert torch.equal(scales[1], scales[2])
    assert torch.equal(scales[1], scales[3])


def test_frozen_weights_stay_as_they_are():
    class Freeze(Callback):
        def on_epoch_start(self, prepared: nn.Module, epoch: int) -> None:
            prepared.weights["head/weight"].requires_grad_(False)

    prepared = prepared_model()
    before = prepared.weights["head/weight"].detach().clone()
    train(prepared, task(), SHORT, callbacks=[Freeze()])
    assert torch.equal(prepared.weights["head/weight"], before)


def test_the_float_model_teaches_without_labels():
    images, _ = task()
    # With two bits the head's bias has steps as large as what there is to learn.
    prepared, model = prepared_model(3), tiny_model()

    def distance() -> float:
        with torch.no_grad():
            return float(distillation_loss(prepared(images)[0], model(images)))

    first = distance()
    train(prepared, images, settings(epochs=6, learning_rate=0.05, distillation=1.0))
    assert distance() < 2 / 3 * first, (first, distance())


def test_a_teacher_of_the_users_own_teaches():
    prepared, (images, _) = prepared_model(), task()
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    train(prepared, images, settings(distillation=1.0), teacher=teacher)
    with pytest.raises(DataError, match="set distillation to 1"):
        train(prepared, TensorData(images), settings(distillation=0.5))


def test_batches_of_a_loader_train_as_well():
    images, labels = task()
    data = torch.utils.data.TensorDataset(images, labels)
    one, other = prepared_model(), prepared_model()
    for prepared in (one, other):
        loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
        train(prepared, loader, SHORT)
    assert_equal_states(one, other)


def test_bfloat16_trains_and_quantizes_in_float32():
    prepared = prepared_model()
    first = loss_of(prepared)
    train(prepared, task(), settings(epochs=4, bfloat16=True))
    assert loss_of(prepared) < first - 0.1
    assert all(p.dtype == torch.float32 for p in prepared.parameters())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        prepared.train()
        edge = prepared.graph.nodes[1]
        quantizer = prepared.activation_quantizer(edge.name)
        x = torch.randn(4, 4, 8, 8, dtype=torch.bfloat16)
        assert torch.equal(quantizer(x), quantizer(x.float()))


def test_augmentation_is_seeded_and_reaches_the_model():
    def flip(images: Tensor) -> Tensor:
        return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)

    models = [prepared_model() for _ in range(3)]
    for prepared, augment in zip(models, (flip, flip, None), strict=True):
        train(prepared, task(), SHORT, augment=augment)
    assert_equal_states(models[0], models[1])
    weight = next(iter(models[0].weights))
    assert not torch.equal(models[0].weights[weight], models[2].weights[weight])


def test_a_loss_that_is_not_finite_names_step_and_edge_and_restores_the_model():
    images, labels = task()

    def breaks(x: Tensor) -> Tensor:
        return x.masked_fill(torch.arange(len(x)).reshape(-1, 1, 1, 1) == len(x) - 1, float("nan"))

    prepared = prepared_model()
    before = state_of(prepared)
    with pytest.raises(TrainingError, match=r"in step 3 the loss is nan; .* the input 'x'"):
        train(prepared, (images, labels), SHORT, augment=breaks)
    assert all(torch.equal(value, before[name]) for name, value in state_of(prepared).items())


def test_a_gradient_that_is_not_finite_names_its_layer():
    class Break(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    def loss(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(Break.apply(outputs[0]), labels)  # type: ignore[arg-type]

    with pytest.raises(TrainingError, match=r"in step 0 the gradient of 'head\.\w+' is not finite"):
        train(prepared_model(), task(), SHORT, loss=loss)


class Drifting(Quantizer):
    """Counts its calls, and changes its mind."""

    calls = 0

    def quantize(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().quantize(x * (1 + self.calls))


def test_a_quantizer_that_breaks_the_contract_is_refused_by_name():
    broken = Recipe(weight=Drifting(4, granularity=PerChannel(), narrow=True))
    with pytest.raises(QuantizerError, match=r"weight of 'stem\.0'.*Drifting breaks the law"):
        train(prepared_with(broken), task(), SHORT)


def test_what_cannot_be_trained_on_is_refused():
    images, labels = task()
    fresh = prepare(tiny_model(), recipe(), images[:1])
    with pytest.raises(QuantizerError, match="never calibrated"):
        train(fresh, (images, labels), SHORT)
    prepared = prepared_model()
    for data, message in (
        ((images[:0], labels[:0]), "needs at least one sample"),
        ((images, labels[:5]), "the same number for each input and the labels"),
        ((images[:8], labels[:8]), "fewer than a batch of 16"),
        ((images / 0, labels), "NaN or infinity"),
        ([], "at least one batch"),
        ([images], "has no labels"),
    ):
        with pytest.raises(DataError, match=message):
            train(prepared, data, SHORT)
    with pytest.raises(UsageError, match="every epoch"):
        train(prepared, ((images, labels) for _ in range(3)), SHORT)


def test_a_scale_never_turns_negative():
    prepared = prepared_model()
    train(prepared, task(), settings(quantizer_learning_rate=50.0, frozen_scale_share=0.0))
    quantizers = [q for q in prepared.modules() if isinstance(q, LearnedScale)]
    assert all(bool((q.scale > 0).all()) for q in quantizers)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_model_trains_to_the_same_weights(monkeypatch: pytest.MonkeyPatch):
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda run: compiled(run, backend="aot_eager", fullgraph=True)
    )
    models = [prepared_model() for _ in range(2)]
    train(models[0], task(), settings(epochs=1))
    train(models[1], task(), settings(epochs=1), compiled=True)
    for name, value in models[0].state_dict().items():
        assert torch.allclose(value, models[1].state_dict()[name], atol=1e-5), name


@pytest.mark.parametrize("kind", [LearnedScale, LSQ])
def test_the_forward_of_training_never_waits_for_a_number(kind: type[Quantizer]):
    """What a GPU would have to wait for raises on the device without numbers."""
    weight = kind(4, granularity=PerChannel(), narrow=True)
    asked = Recipe("learned", weight=weight, activation=kind(4, symmetric=False))
    prepared, (images, _) = prepared_with(asked), task()
    prepared.train()
    prepared.to("meta")
    (output,) = prepared(images.to("meta"))
    output.sum().backward()


def test_checkpoint_folders_are_not_overwritten_by_accident(tmp_path: Path):
    train(prepared_model(), task(), settings(epochs=1), checkpoint=tmp_path / "run")
    with pytest.raises(UsageError, match="holds a training already"):
        train(prepared_model(), task(), settings(epochs=1), checkpoint=tmp_path / "run")
    with pytest.raises(UsageError, match="no checkpoint"):
        train(prepared_model(), task(), SHORT, checkpoint=tmp_path / "none", resume=True)

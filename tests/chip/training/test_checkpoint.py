from pathlib import Path

import pytest
import torch
from tests.chip.training.learning import (
    SHORT,
    assert_equal_states,
    prepared_model,
    recipe,
    task,
    tiny_model,
)
from torch import nn

from photomask.chip import PreparedModel, prepare
from photomask.chip.training import (
    Callback,
    TrainingSettings,
    WidthStage,
    load_weights,
    save_weights,
    train,
)
from photomask.errors import DocumentError, TrainingError

LONG = TrainingSettings(
    epochs=4,
    batch_size=16,
    learning_rate=0.05,
    quantizer_learning_rate=1e-3,
    average_decay=0.9,
    distillation=0.5,
    widths=(WidthStage(epoch=0, bits=8), WidthStage(epoch=1, bits=4)),
    frozen_scale_share=0.25,
)


class KilledError(Exception):
    """The machine has gone."""


class Kill(Callback):
    """Ends the process's life before an epoch, and remembers how many began."""

    def __init__(self, epoch: int | None):
        self.epoch = epoch
        self.begun = 0

    def on_epoch_start(self, prepared: PreparedModel, epoch: int) -> None:
        if epoch == self.epoch:
            raise KilledError
        self.begun += 1
        if epoch == 1:
            prepared.weights["body/0/bias"].requires_grad_(False)

    def state(self) -> dict[str, int]:
        return {"begun": self.begun}

    def restore(self, state: dict[str, int]) -> None:
        self.begun = state["begun"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, optimizer: str):
    settings = TrainingSettings.model_validate(LONG.model_dump() | {"optimizer": optimizer})
    whole, first, second = (prepared_model() for _ in range(3))
    train(whole, task(), settings, callbacks=[Kill(None)])
    with pytest.raises(KilledError):
        train(first, task(), settings, callbacks=[Kill(2)], checkpoint=tmp_path / "run")
    last = Kill(None)
    report = train(
        second, task(), settings, callbacks=[last], checkpoint=tmp_path / "run", resume=True
    )
    assert last.begun == 4
    assert [record.epoch for record in report.epochs] == [0, 1, 2, 3]
    assert_equal_states(whole, second)
    again = prepare(tiny_model(), recipe(), task()[0][:1])
    train(again, task(), settings, callbacks=[last], checkpoint=tmp_path / "run", resume=True)
    assert_equal_states(whole, again)


def test_weights_are_read_by_a_model_prepared_the_same_way(tmp_path: Path):
    prepared = prepared_model()
    train(prepared, task(), SHORT)
    save_weights(prepared, tmp_path / "weights")
    other = prepare(tiny_model(), recipe(), task()[0][:1])
    load_weights(other, tmp_path / "weights")
    assert_equal_states(prepared, other)
    with torch.no_grad():
        assert torch.equal(prepared(task()[0])[0], other.eval()(task()[0])[0])


def test_shared_scales_are_shared_again(tmp_path: Path):
    class Joined(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([(2 * x).relu(), (2.5 * x).relu()], 1).mean((2, 3))

    from photomask.chip import calibrate

    x = task()[0]
    prepared, other = (prepare(Joined(), recipe(8), x[:1]) for _ in range(2))
    calibrate(prepared, x)
    owners = [prepared.scale_owner(node.name) for node in prepared.graph.nodes]
    assert owners != [other.scale_owner(node.name) for node in other.graph.nodes]
    save_weights(prepared, tmp_path / "weights")
    load_weights(other, tmp_path / "weights")
    assert owners == [other.scale_owner(node.name) for node in other.graph.nodes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "run"
    train(prepared_model(), task(), SHORT, checkpoint=folder)
    return folder


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0.01, r"learning_rate is 0\.2 there and 0\.01 here"),
        ("epochs", 5, "epochs is 2 there and 5 here"),
    ],
)
def test_other_settings_are_refused(run: Path, field: str, value: object, message: str):
    other = TrainingSettings.model_validate(SHORT.model_dump() | {field: value})
    with pytest.raises(TrainingError, match=message):
        train(prepared_model(), task(), other, checkpoint=run, resume=True)


def test_other_recipes_graphs_data_and_callbacks_are_refused(run: Path):
    def resume(prepared: PreparedModel, count: int = 64, **more: object) -> None:
        train(prepared, task(count), SHORT, checkpoint=run, resume=True, **more)  # type: ignore[arg-type]

    with pytest.raises(TrainingError, match="another recipe: it has 'recipe learned4'"):
        resume(prepared_model(3))
    with pytest.raises(TrainingError, match="data is"):
        resume(prepared_model(), 48)
    with pytest.raises(TrainingError, match="0 callbacks there, 1 here"):
        resume(prepared_model(), callbacks=[Callback()])
    model = tiny_model()
    model.stem[2] = nn.ReLU6()  # type: ignore[operator]
    prepared = prepare(model, recipe(), task()[0][:1])
    with pytest.raises(TrainingError, match=r"another graph: it has \"stem\.0.*inf.*here.*6\.0"):
        load_weights(prepared, run)


def test_damaged_checkpoints_are_refused(run: Path, tmp_path: Path):
    import shutil

    for name in ("model.json", "model.safetensors", "training.json", "training.safetensors"):
        folder = tmp_path / name.replace(".", "_")
        shutil.copytree(run, folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DocumentError, match=name):
            train(prepared_model(), task(), SHORT, checkpoint=folder, resume=True)


def test_a_training_that_diverges_keeps_the_last_good_checkpoint(tmp_path: Path):
    calls = [0]

    def loss(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        factor = float("nan") if calls[0] == 6 else 1.0
        return factor * nn.functional.cross_entropy(outputs[0], labels)

    whole, broken, resumed = (prepared_model() for _ in range(3))
    train(whole, task(), SHORT)
    with pytest.raises(TrainingError, match="in step 5 the loss is nan; all edges are finite"):
        train(broken, task(), SHORT, loss=loss, checkpoint=tmp_path / "run")
    train(resumed, task(), SHORT, checkpoint=tmp_path / "run", resume=True)
    assert_equal_states(whole, resumed)

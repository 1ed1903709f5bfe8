"""What follows a training sees every epoch, and changes nothing of it."""

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import pytest
import torch
from tests.docs.pages import ROOT, blocks_of
from torch import nn

from photomask.chip import PreparedModel, calibrate, prepare
from photomask.chip.reconstruction import BlockReport, ReconstructionSettings, reconstruct
from photomask.chip.training import EpochRecord, TrainingSettings, train

PAGE = ROOT / "docs" / "how-to" / "follow-training.md"
SETTINGS = TrainingSettings(epochs=3, batch_size=8)


def prepared_network(data: torch.Tensor) -> PreparedModel:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    return calibrate(prepare(network, "w4a4-lsq", data[:1]), data)


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(16, 6, generator=generator), torch.arange(16) % 3


def test_every_epoch_is_observed_as_the_report_tells_it(data: tuple[torch.Tensor, torch.Tensor]):
    seen: list[EpochRecord] = []
    report = train(prepared_network(data[0]), data, SETTINGS, observe=seen.append)
    assert tuple(seen) == report.epochs
    assert [record.epoch for record in seen] == [0, 1, 2]


def test_who_observes_changes_nothing(data: tuple[torch.Tensor, torch.Tensor]):
    alone, watched = prepared_network(data[0]), prepared_network(data[0])

    def measure(record: EpochRecord) -> None:
        watched.eval()
        with torch.no_grad():
            watched(data[0])

    train(alone, data, SETTINGS)
    train(watched, data, SETTINGS, observe=measure)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_an_epoch_is_kept_before_it_is_observed(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
):
    def stop(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train(prepared_network(data[0]), data, SETTINGS, checkpoint=checkpoint, observe=stop)
    seen: list[EpochRecord] = []
    resumed = prepared_network(data[0])
    report = train(resumed, data, SETTINGS, checkpoint=checkpoint, resume=True, observe=seen.append)
    assert [record.epoch for record in seen] == [2]
    assert len(report.epochs) == 3


def test_every_block_of_a_reconstruction_is_observed(data: tuple[torch.Tensor, torch.Tensor]):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    prepared = calibrate(prepare(network, "w4a8", data[0][:1]), data[0])
    seen: list[BlockReport] = []
    settings = ReconstructionSettings(iterations=3, granularity="layer")
    report = reconstruct(prepared, data[0], settings=settings, observe=seen.append)
    assert tuple(seen) == report.blocks
    assert len(seen) == 2


class Run:
    """A run of Weights & Biases, which keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        assert step is not None
        self.logged.append((step, data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finished = True


def test_the_page_writes_curves_for_tensorboard_and_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, asked = Run(), {}
    wandb = ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)

    def init(project: str, config: dict[str, Any], mode: str) -> Run:
        asked.update(project=project, config=config, mode=mode)
        return run

    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(PAGE):
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(PAGE), "exec"), namespace)
    events = EventAccumulator(str(tmp_path / "runs" / "w4a4"))
    events.Reload()
    curves = {"loss", "learning rate", "seconds of the epoch", "held-out accuracy"}
    assert set(events.Tags()["scalars"]) == curves
    for name in curves:
        assert [event.step for event in events.Scalars(name)] == [0, 1]
    assert all(0 <= event.value <= 1 for event in events.Scalars("held-out accuracy"))
    assert (asked["mode"], asked["config"]["epochs"]) == ("offline", 2)
    assert [step for step, _ in run.logged] == [0, 1]
    assert {*run.logged[0][1]} == {*EpochRecord.model_fields} - {"epoch"}
    assert run.finished

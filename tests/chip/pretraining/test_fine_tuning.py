from pathlib import Path

import pytest
import torch
from tests.chip.pretraining.tiny import SHORT, assert_equal, encoder
from tests.chip.training.learning import task
from torch import nn

from photomask.chip.pretraining import fine_tune
from photomask.chip.training import Schedule
from photomask.errors import DataError, TrainingError, UsageError

LONGER = Schedule(epochs=12, batch_size=16, optimizer="adamw", learning_rate=0.02)


def test_fine_tuning_learns_the_classes_and_resumes_to_the_same_bits(tmp_path: Path):
    images, labels = task()
    whole, resumed = (encoder().classifier() for _ in range(2))
    report = fine_tune(whole, (images, labels), LONGER, device="cpu")
    assert report.epochs[-1].loss < 0.5 * report.epochs[0].loss
    assert not whole.training

    class StopError(Exception):
        pass

    def stop(record: object) -> None:
        raise StopError

    run = {"device": "cpu", "checkpoint": tmp_path / "run"}
    with pytest.raises(StopError):
        fine_tune(encoder().classifier(), (images, labels), LONGER, observe=stop, **run)  # type: ignore[arg-type]
    fine_tune(resumed, (images, labels), LONGER, resume=True, **run)  # type: ignore[arg-type]
    assert_equal(whole, resumed)


def test_a_frozen_encoder_keeps_its_weights():
    model = encoder().classifier()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    before = model.stem[0].weight.clone()  # type: ignore[index, union-attr]
    fine_tune(model, task(), SHORT, device="cpu")
    assert torch.equal(model.stem[0].weight, before)  # type: ignore[index, union-attr]


def test_labels_that_are_absent_short_or_no_classes_are_refused():
    images, labels = task()
    model = encoder().classifier()
    for data, message in (
        (images, "no labels, which fine-tuning needs"),
        ([images[:32]] * 3, "no labels, which fine-tuning needs"),
        ((images, labels[:5]), "the same number for each input and the labels"),
        ((images, labels + 1), "labels go from 1 to 3"),
        ((images[:8], labels[:8]), "fewer than a batch of 32"),
    ):
        with pytest.raises(DataError, match=message):
            fine_tune(model, data, SHORT, device="cpu")


def test_a_model_without_logits_and_a_loss_that_is_not_finite_are_errors():
    images, labels = task()
    with pytest.raises(UsageError, match="one tensor of logits"):
        fine_tune(nn.LSTM(8, 4), (images[:, 0], labels), SHORT, device="cpu")
    with pytest.raises(
        UsageError, match=r"model cannot compute with samples of the shape \[1, 8, 8"
    ):
        fine_tune(nn.Linear(5, 4), (images, labels), SHORT, device="cpu")
    with pytest.raises(UsageError, match="no parameters"):
        fine_tune(nn.Flatten(), (images, labels), SHORT, device="cpu")
    with pytest.raises(TrainingError, match="in step 0 the loss is nan"):
        fine_tune(
            encoder().classifier(),
            (images, labels),
            SHORT,
            loss=lambda outputs, _: outputs[0].sum() * float("nan"),
            device="cpu",
        )

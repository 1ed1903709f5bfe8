"""Data that lie on another device than the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from photomask.chip import PreparedModel, calibrate, convert, prepare, verify
from photomask.chip import data as data_module
from photomask.chip.equalization import correct_biases, smooth, smooth_products
from photomask.chip.mixed_precision import measure_sensitivity
from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
from photomask.chip.training import TrainingSettings, refit, train
from photomask.chip.verification import compare_with_prepared
from photomask.chip.weight_rounding import compensate_rounding, scale_salient_channels

LABELS = torch.arange(8) % 3


class Network(nn.Module):
    """Has a norm, a product of activations, a table and two layers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.norm = nn.LayerNorm(6)
        self.query, self.key = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, words, facts):
        x = self.norm(self.table(words) + facts)
        x = x + torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1) @ x
        return self.head(x.mean(1))


def network() -> Network:
    torch.manual_seed(1)
    return Network().eval()


def inputs(device: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(0, 5, (8, 4), generator=generator)
    facts = torch.randn(8, 4, 6, generator=generator)
    return {"words": words.to(device), "facts": facts.to(device)}


def trained(prepared: PreparedModel, data: Any, **more: Any) -> Any:
    settings = TrainingSettings(epochs=1, batch_size=4)
    return train(prepared, {**data, "labels": LABELS}, settings, device=prepared.device, **more)


def in_batches(prepared: PreparedModel, data: Any) -> Any:
    batches = [{name: x[at : at + 4] for name, x in data.items()} for at in (0, 4)]
    labelled = [{**batch, "labels": LABELS[:4]} for batch in batches]
    return train(prepared, labelled, TrainingSettings(epochs=1), device=prepared.device)


BEFORE: dict[str, Callable[[PreparedModel, Any], Any]] = {
    "calibrate": calibrate,
    "smooth": smooth,
    "smooth_products": smooth_products,
    "scale_salient_channels": lambda p, d: scale_salient_channels(p, d, steps=2),
    "measure_sensitivity": lambda p, d: measure_sensitivity(p, d, weight_bits=(4, 8)),
}
AFTER: dict[str, Callable[[PreparedModel, Any], Any]] = {
    "refit": refit,
    "correct_biases": correct_biases,
    "compensate_rounding": compensate_rounding,
    "reconstruct": lambda p, d: reconstruct(p, d, settings=ReconstructionSettings(iterations=2)),
    "train": trained,
    "train on batches": in_batches,
}


def run(name: str, model_device: str, data_device: str) -> PreparedModel:
    prepared = prepare(network(), "w8a8", inputs("cpu")).to(model_device)
    if name in AFTER:
        calibrate(prepared, inputs(model_device))
    (BEFORE | AFTER)[name](prepared, inputs(data_device))
    assert prepared.device.type == model_device
    return prepared


@pytest.mark.parametrize("name", [*BEFORE, *AFTER])
def test_every_function_asks_for_data_where_the_model_is(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    place = data_module._placed

    def recorded(form: data_module.InputForm, x: torch.Tensor) -> torch.Tensor:
        asked.append(form.device)
        return place(form, x)

    monkeypatch.setattr(data_module, "_placed", recorded)
    run(name, "cpu", "cpu")
    assert len(asked) >= 2
    assert set(asked) == {torch.device("cpu")}


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "data"), [("cuda", "cpu"), ("cpu", "cuda")])
@pytest.mark.parametrize("name", [*BEFORE, *AFTER])
def test_data_may_lie_on_another_device_than_the_model(name: str, model: str, data: str):
    found, expected = run(name, model, data), run(name, model, model)
    if name in BEFORE:
        calibrate(found, inputs(data))
        calibrate(expected, inputs(model))
    codes = inputs(model).values()
    with torch.no_grad():
        # Sums of gradients on a GPU have no fixed order.
        torch.testing.assert_close(found(*codes), expected(*codes), rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model_device", ["cpu", "cuda"])
def test_a_program_is_verified_on_data_of_any_device(model_device: str, device: str):
    prepared = prepare(network(), "w8a8", inputs("cuda"))
    calibrate(prepared, inputs("cuda"))
    program = convert(prepared, "asic")
    given = inputs("cuda")
    report = verify(network().to(model_device), program, given, LABELS.cuda(), device=device)
    expected = verify(network(), program, inputs("cpu"), LABELS, device="cpu")
    assert report.engine == expected.engine
    assert [output.integer_top1 for output in report.outputs] == [
        output.integer_top1 for output in expected.outputs
    ]
    assert compare_with_prepared(prepared, program, given, device=device) == (
        compare_with_prepared(prepared, program, inputs("cpu"), device=device)
    )

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from tests.chip.training.learning import LearnedScale, prepared_model
from torch import nn

from photomask.chip import Recipe, prepare
from photomask.chip.training import TrainingSettings, WidthStage, parameter_groups


def test_learning_rates_rise_in_the_warm_up_and_fall_to_nothing():
    settings = TrainingSettings(epochs=4, warmup_epochs=1)
    factors = [settings.learning_rate_factor(step, 10) for step in range(40)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[25] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert settings.learning_rate_factor(40, 10) == pytest.approx(0.0)


def test_widths_hold_until_the_next_stage():
    stages = (WidthStage(epoch=0, bits=8), WidthStage(epoch=3, bits=4))
    settings = TrainingSettings(epochs=6, widths=stages)
    assert [settings.least_bits(epoch) for epoch in range(6)] == [8, 8, 8, 4, 4, 4]
    assert TrainingSettings(epochs=1).least_bits(0) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("distillation", 1.5),
        ("warmup_epochs", 3.0),
        ("widths", (WidthStage(epoch=2, bits=8), WidthStage(epoch=1, bits=4))),
        ("widths", (WidthStage(epoch=3, bits=8),)),
        ("optimizer", "adam"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: object):
    with pytest.raises(ValidationError):
        TrainingSettings.model_validate({"epochs": 3, field: value})


def test_only_dense_weights_decay_and_quantizers_have_their_own_rate():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2)
    )
    recipe = Recipe(weight=LearnedScale(8), activation=LearnedScale(8, symmetric=False))
    prepared = prepare(model, recipe, torch.randn(1, 2, 4, 4))
    groups = parameter_groups(
        prepared, learning_rate=0.1, quantizer_learning_rate=0.01, weight_decay=1e-4
    )
    rows = [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups]
    # Of the three layers, one is depthwise; three weights and five edges have a scale.
    assert rows[:2] == [("weights", 0.1, 1e-4, 2), ("biases", 0.1, 0.0, 4)]
    assert rows[2][:3] == ("quantizers", 0.01, 0.0)
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in prepared.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(list(prepared.parameters()))


def test_groups_work_with_any_optimizer():
    prepared = prepared_model()
    groups = parameter_groups(
        prepared, learning_rate=0.1, quantizer_learning_rate=0.01, weight_decay=0.0
    )
    assert len(torch.optim.Adam(groups).param_groups) == 3

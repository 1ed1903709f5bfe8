import torch
from tests.chip.training.learning import prepared_model, state_of

from photomask.chip.training import WeightAverage


def test_the_average_follows_its_formula_and_restarts():
    prepared = prepared_model()
    average = WeightAverage(prepared, 0.5)
    name, weight = next(iter(prepared.named_parameters()))
    expected = weight.detach().clone()
    for step in range(1, 21):
        with torch.no_grad():
            weight.add_(1.0)
        average.update()
        decay = min(0.5, step / (step + 10))
        expected = decay * expected + (1 - decay) * weight.detach()
    assert torch.allclose(average.tensors[name], expected, atol=1e-5)
    average.copy_to_model()
    assert torch.equal(weight, average.tensors[name])
    average.restart()
    assert average.steps == 0


def test_a_model_at_rest_is_its_own_average():
    prepared = prepared_model()
    before = state_of(prepared)
    average = WeightAverage(prepared, 0.9)
    for _ in range(3):
        average.update()
    average.copy_to_model()
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())

import numpy as np
import pytest
import torch
from tests.chip.pretraining.tiny import encoder, state_of
from tests.chip.training.learning import task
from torch import Tensor, nn

from photomask.chip.pretraining import linear_probe
from photomask.errors import DataError, UsageError


class Features(nn.Module):
    """Returns its inputs, which are features already."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0.0], [60.0, 0.0], [0.0, 0.6]])
    noise = torch.randn(count, 2, generator=generator) * torch.tensor([20.0, 0.2])
    return centres[labels] + noise, labels


def test_the_probe_is_the_minimum_of_its_loss():
    """Gradient descent in NumPy, for very long, ends with the same predictions."""
    (x, y), (test_x, test_y) = blobs(60, 1), blobs(300, 2)
    report = linear_probe(Features(), x, y, test_x, test_y, decay=0.1)
    mean, spread = x.numpy().mean(0), x.numpy().std(0)
    z, test_z = ((part.numpy() - mean) / spread for part in (x, test_x))
    wanted = np.eye(3)[y.numpy()]
    weight = np.zeros((2, 3))
    bias = np.zeros(3)
    for _ in range(4000):
        scores = np.exp(z @ weight + bias)
        error = scores / scores.sum(1, keepdims=True) - wanted
        weight -= 0.5 * (z.T @ error / len(z) + 0.1 * weight)
        bias -= 0.5 * error.mean(0)
    expected = float(((test_z @ weight + bias).argmax(1) == test_y.numpy()).mean())
    assert report.accuracy == pytest.approx(expected, abs=0.011)
    assert (report.samples, report.test_samples, report.classes) == (60, 300, 3)
    assert "linear probe: 2 features, 3 classes" in str(report)


def test_the_encoder_stays_as_it_is():
    module, (images, labels) = encoder().train(), task()
    before = state_of(module)
    report = linear_probe(module, images, labels, images[:20], labels[:20])
    assert module.training
    assert all(torch.equal(x, before[name]) for name, x in state_of(module).items())
    assert report.training_accuracy > 0.5


def test_samples_and_labels_are_checked():
    (x, y), features = blobs(30, 1), Features()
    for arguments, message in (
        ((x, y[:5], x, y), "the labels of the probe must be integers \\[30\\]"),
        ((x, y, x, y[:5]), "the test labels must be integers"),
        ((x, y, x, y + 7), "the test labels go from 7"),
        ((x[:0], y[:0], x, y), "needs training samples"),
        ((x, y, [x], y), "needs test samples"),
        ((x / 0, y, x, y), "NaN or infinity"),
    ):
        with pytest.raises(DataError, match=message):
            linear_probe(features, *arguments)
    with pytest.raises(UsageError, match="must return features"):
        linear_probe(nn.Conv1d(2, 2, 1), x[:, :, None], y, x[:, :, None], y)

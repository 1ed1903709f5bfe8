"""Measures how much a linear layer can read from the features of a frozen encoder."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photomask.chip.data import Array, as_tensor
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.labels import class_labels
from photomask.chip.pretraining.trying import device_of, features_of
from photomask.documents import Document
from photomask.errors import DataError
from photomask.report import Shown, Table

BATCH = 512
"""The number of samples that are encoded at once."""
STEPS = 200
"""The most steps of L-BFGS, which ends earlier where the loss no longer falls."""


class ProbeReport(Shown, Document):
    """The report of a linear probe.

    Attributes:
        samples: the number of samples that the probe learned from.
        test_samples: the number of samples that it was tested on.
        features: the number of features of the encoder.
        classes: the number of classes.
        training_accuracy: the share of the samples that the probe classifies correctly, 0 to 1.
        accuracy: the share of the test samples that the probe classifies correctly, 0 to 1.
    """

    schema_version: Literal[1] = 1
    samples: int
    test_samples: int
    features: int
    classes: int
    training_accuracy: float
    accuracy: float

    def shown(self) -> Table:
        """Returns a table of the two accuracies."""
        rows = [
            ("samples", "count", "accuracy"),
            ("training", f"{self.samples:,}", f"{self.training_accuracy:.2%}"),
            ("test", f"{self.test_samples:,}", f"{self.accuracy:.2%}"),
        ]
        head = f"linear probe: {self.features} features, {self.classes} classes"
        return Table(head, rows)


@float32_by_default()
def linear_probe(
    encoder: nn.Module,
    data: Array,
    labels: Any,
    test_data: Array,
    test_labels: Any,
    *,
    decay: float = 1e-4,
    device: torch.device | str | None = None,
) -> ProbeReport:
    """Trains a linear classifier on the features of a frozen encoder, and tests it.

    The features are divided by their standard deviations over the samples. The classifier is the
    minimum of the mean cross-entropy plus `decay / 2` times the squared norm of its weight, which
    L-BFGS finds without a learning rate or a seed.

    Args:
        encoder: a module that returns features, [samples, features]. It stays as it is.
        data: the samples to learn from, [samples, ...].
        labels: their classes, integers from 0.
        test_data: the samples to test on.
        test_labels: their classes.
        decay: the weight of the squared norm.
        device: the device; None for that of the encoder.

    Raises:
        DataError: there are no samples, the number of labels differs, or labels are no classes.
        UsageError: the encoder returns no features, or has no parameters.
    """
    before = device_of(encoder, "encoder")
    training = encoder.training
    place = torch.device(before if device is None else device)
    try:
        encoder.to(place).eval()
        features = _encode(encoder, data, place, "training")
        test_features = _encode(encoder, test_data, place, "test")
    finally:
        encoder.to(before).train(training)
    known = as_tensor(labels)
    count = 2 if known is None or not known.numel() else max(2, int(known.max()) + 1)
    classes = class_labels(labels, [count], len(features), "the labels of the probe")
    test_classes = class_labels(test_labels, [count], len(test_features), "the test labels")
    mean = features.mean(dim=0)
    spread = features.std(dim=0, correction=0).clamp(min=1e-6)
    standard = (features - mean) / spread
    layer = _fitted(standard, classes.to(place), count, decay)
    return ProbeReport(
        samples=len(features),
        test_samples=len(test_features),
        features=features.shape[1],
        classes=count,
        training_accuracy=_accuracy(layer, standard, classes),
        accuracy=_accuracy(layer, (test_features - mean) / spread, test_classes),
    )


@torch.no_grad()
def _encode(encoder: nn.Module, data: Array, device: torch.device, what: str) -> Tensor:
    """Returns the features of all samples, float32 [samples, features]."""
    samples = as_tensor(data)
    if samples is None or not samples.ndim or not len(samples):
        raise DataError(
            f"a linear probe needs {what} samples in one tensor or array; found "
            f"{type(data).__name__}{'' if samples is None else f' {list(samples.shape)}'}"
        )
    parts = [features_of(encoder, part.to(device), "encoder") for part in samples.split(BATCH)]
    features = torch.cat(parts).float()
    if not bool(torch.isfinite(features).all()):
        raise DataError(f"the features of the {what} samples hold NaN or infinity")
    return features


def _fitted(features: Tensor, classes: Tensor, count: int, decay: float) -> nn.Linear:
    """Returns the linear classifier with the smallest loss."""
    layer = nn.Linear(features.shape[1], count).to(features.device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(features), classes)
        loss = loss + decay / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return layer


@torch.no_grad()
def _accuracy(layer: nn.Linear, features: Tensor, classes: Tensor) -> float:
    found = layer(features).argmax(dim=1).cpu()
    return float((found == classes).double().mean())

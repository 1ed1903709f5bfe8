"""Comparison of a result with its reference, batch by batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SQNR_LIMIT_DB = 200.0
"""Stands for "equal": float64 cannot tell less noise than this from rounding."""


@dataclass
class NoiseMeter:
    """Power of a signal and of its error: `sum x**2` and `sum (x - y)**2`."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, reference: Tensor, found: Tensor) -> None:
        """Counts a batch.

        Args:
            reference: the signal, float32 or float64 of any shape.
            found: what stands for it, float of the same shape.
        """
        self.signal += _power(reference)
        self.noise += _power(found - reference)

    @property
    def sqnr_db(self) -> float:
        """`10 log10(signal / noise)`, between -200 and 200; the limits stand for infinity."""
        if self.noise == 0:
            return SQNR_LIMIT_DB
        if self.signal == 0:
            return -SQNR_LIMIT_DB
        ratio = 10 * math.log10(self.signal / self.noise)
        return max(-SQNR_LIMIT_DB, min(SQNR_LIMIT_DB, ratio))


def _power(x: Tensor) -> float:
    """Returns the sum of squares, which is added up in float64."""
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2


@dataclass
class Top1Meter:
    """Counts how often two sets of scores name the same class, and the right one."""

    samples: int = 0
    agreeing: int = 0
    labelled: int = 0
    reference_right: int = 0
    found_right: int = 0

    def add(self, reference: Tensor, found: Tensor, labels: Tensor | None = None) -> None:
        """Counts a batch; among equal scores the first counts.

        Args:
            reference: [batch, classes] scores.
            found: [batch, classes] scores.
            labels: [batch] indices of the right classes.
        """
        a, b = reference.argmax(dim=1), found.argmax(dim=1)
        self.samples += len(a)
        self.agreeing += int((a == b).sum())
        if labels is not None:
            self.labelled += len(labels)
            self.reference_right += int((a == labels).sum())
            self.found_right += int((b == labels).sum())

    @property
    def agreement(self) -> float:
        """Percentage of samples for which both name the same class."""
        return 100 * self.agreeing / self.samples

    @property
    def reference_top1(self) -> float | None:
        """Percentage of labelled samples that the reference names rightly."""
        return 100 * self.reference_right / self.labelled if self.labelled else None

    @property
    def found_top1(self) -> float | None:
        """Percentage of labelled samples that the result names rightly."""
        return 100 * self.found_right / self.labelled if self.labelled else None

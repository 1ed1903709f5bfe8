"""Each loss beside the formula written out in NumPy, element by element."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photomask.chip.pretraining import BarlowTwins, CrossDistillation, VICReg
from photomask.errors import UsageError


def pair(seed: int, samples: int, dimensions: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(samples, dimensions, generator=generator, dtype=torch.float64) for _ in range(2)
    )  # type: ignore[return-value]


def barlow(a: np.ndarray, b: np.ndarray, weight: float) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            c = (a[:, i] * b[:, j]).sum() / np.sqrt((a[:, i] ** 2).sum() * (b[:, j] ** 2).sum())
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def vicreg(a: np.ndarray, b: np.ndarray) -> float:
    n, d = a.shape
    total = 25 * ((a - b) ** 2).sum() / (n * d)
    for z in (a, b):
        covariance = np.cov(z.T, ddof=1)
        hinges = [max(0.0, 1 - np.sqrt(covariance[i, i] + 1e-4)) for i in range(d)]
        total += 25 * sum(hinges) / d
        total += sum(covariance[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return total


SIZES = {"seed": st.integers(0, 2**20), "samples": st.integers(3, 12), "size": st.integers(2, 6)}


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_barlow_twins_is_its_formula(seed: int, samples: int, size: int):
    first, second = pair(seed, samples, size)
    expected = barlow(first.numpy(), second.numpy(), 0.3)
    assert float(BarlowTwins(0.3).loss(first, second)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_vicreg_is_its_formula(seed: int, samples: int, size: int):
    first, second = pair(seed, samples, size)
    expected = vicreg(first.numpy(), second.numpy())
    assert float(VICReg().loss(first, second)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_barlow_twins_sees_neither_the_scale_nor_the_offset_of_a_dimension(
    seed: int, samples: int, size: int
):
    first, second = pair(seed, samples, size)
    moved = first * torch.arange(1, size + 1) + torch.arange(size)
    method = BarlowTwins()
    assert float(method.loss(moved, second)) == pytest.approx(float(method.loss(first, second)))


def test_cross_distillation_adds_the_host_and_the_distance_to_it():
    own, hosted = pair(1, 8, 4), pair(2, 8, 4)
    method = CrossDistillation(nn.Linear(1, 1), BarlowTwins(0.1), distillation=0.5)
    (a, b), (c, d) = ([x.numpy() for x in views] for views in (own, hosted))
    distances = (barlow(a, c, 0.1) + barlow(b, d, 0.1)) / 2
    expected = barlow(a, b, 0.1) + barlow(c, d, 0.1) + 0.5 * distances
    assert float(method.total(own, hosted)) == pytest.approx(expected, rel=1e-9)


def test_the_distillation_has_no_gradient_in_the_host():
    own, hosted = pair(1, 8, 4), pair(2, 8, 4)
    host = [x.requires_grad_() for x in hosted]
    method = CrossDistillation(nn.Linear(1, 1))
    gradient = torch.autograd.grad(method.total(own, host), host)
    alone = torch.autograd.grad(BarlowTwins().loss(*host), host)
    for found, expected in zip(gradient, alone, strict=True):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BarlowTwins(-1.0),
        lambda: VICReg(variance=float("nan")),
        lambda: CrossDistillation("resnet20"),  # type: ignore[arg-type]
        lambda: CrossDistillation(nn.Linear(1, 1), distillation=-0.1),
    ],
)
def test_weights_below_0_and_hosts_that_are_no_modules_are_refused(make):
    with pytest.raises(UsageError, match="found"):
        make()

import pytest
import torch

from photomask.chip.training import distillation_loss
from photomask.chip.training.losses import cross_entropy, mixed_loss


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_the_divergence_of_the_softmaxes(temperature: float):
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    q, p = ((x.double() / temperature).softmax(1) for x in (student, teacher))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(float(expected))
    assert float(distillation_loss(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)


def test_only_the_student_learns():
    student, teacher = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    distillation_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_mixture_weighs_labels_and_teacher():
    outputs, teacher = (torch.randn(4, 3),), (torch.randn(4, 3),)
    labels = torch.tensor([0, 1, 2, 0])
    hard = cross_entropy(0.1)(outputs, labels)
    soft = distillation_loss(outputs[0], teacher[0], 2.0)
    both = mixed_loss(cross_entropy(0.1), 0.25, 2.0)(outputs, labels, teacher)
    assert float(both) == pytest.approx(float(0.75 * hard + 0.25 * soft))
    assert torch.equal(mixed_loss(cross_entropy(), 1.0, 2.0)(outputs, None, teacher), soft)

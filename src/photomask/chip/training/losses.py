"""Computes losses from labels, from the outputs of a teacher, or from both."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from photomask.chip.labels import class_labels

IGNORED = -100
"""The label of positions without a class, which is PyTorch's default."""
Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]
"""Returns the mean loss over the samples, [], from the model's outputs and the labels."""


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns the mean Kullback-Leibler divergence of the student from the teacher.

        temperature**2 * mean over samples of sum_c p[c] * log(p[c] / q[c])

    Here `p` and `q` are the softmax of the teacher's and the student's logits, divided by the
    temperature. The square keeps the magnitude of the gradients.

    Args:
        logits: the logits of the student, [batch, ..., classes].
        teacher_logits: the logits of the teacher in the same shape; they receive no gradient.
        temperature: the temperature; values above 1 make softer targets.

    Source: Hinton, Vinyals, Dean 2015, section 2, arXiv:1503.02531.
    """
    student = F.log_softmax(logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / (logits.numel() / logits.shape[-1])


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Returns a function that computes the cross-entropy of the first output.

    Labels are classes (integers), with `IGNORED` where there is none, or a probability for each
    class.
    """

    def loss(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        logits = outputs[0].float()
        return F.cross_entropy(
            logits, labels, ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    return loss


def cross_entropy_labels(shape: Sequence[int]) -> Callable[[Tensor, int], Tensor]:
    """Returns a function that converts labels for `cross_entropy`, and refuses other labels.

    Args:
        shape: the shape of the first output, [1, classes, ...].
    """

    def check(labels: Tensor, samples: int) -> Tensor:
        if labels.is_floating_point() and list(labels.shape) == [samples, *shape[1:]]:
            return labels.float()  # these are probabilities of the classes
        return class_labels(labels, shape[1:], samples, "labels", ignored=IGNORED)

    return check


def mixed_loss(loss: Loss, distillation: float, temperature: float) -> Callable[..., Tensor]:
    """Returns the function `(1 - distillation) * loss + distillation * distillation_loss`.

    The function takes the model's outputs, the labels and the teacher's outputs. Labels, or the
    teacher's outputs, may be None where their term has the factor 0.
    """

    def mixture(
        outputs: tuple[Tensor, ...], labels: Tensor | None, teacher: tuple[Tensor, ...] | None
    ) -> Tensor:
        total = torch.zeros((), device=outputs[0].device)
        if labels is not None and distillation < 1:
            total = total + (1 - distillation) * loss(outputs, labels)
        if teacher is not None:
            total = total + distillation * distillation_loss(outputs[0], teacher[0], temperature)
        return total

    return mixture

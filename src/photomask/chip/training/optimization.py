"""Makes optimizers, and decides the weight decay and learning rate of each parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import Quantizer
from photomask.chip.training.settings import Schedule

SMALLEST_SCALE = 2.0**-10
"""A learned scale never falls below this share of the fitted scale, so that it stays positive."""


def quantizer_parameters(prepared: PreparedModel) -> list[nn.Parameter]:
    """Returns the parameters of a prepared model's quantizers."""
    return [
        *prepared.weight_quantizers.parameters(),
        *prepared.activation_quantizers.parameters(),
    ]


def parameter_groups(
    prepared: PreparedModel,
    *,
    learning_rate: float,
    quantizer_learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Returns the parameters in groups for an optimizer of `torch.optim`.

    Args:
        prepared: a prepared model.
        learning_rate: the learning rate of weights and biases.
        quantizer_learning_rate: the learning rate of what quantizers learn, such as scales.
        weight_decay: the weight decay of dense weights. Depthwise filters have none, because it
            turns their channels off; biases, norms and quantizers have none either.

    Returns:
        The groups `weights`, `biases` and `quantizers`, without empty ones. Each has its `name`,
        and its learning rate also as `initial_lr` for schedules.
    """
    learned = quantizer_parameters(prepared)
    own = {id(parameter) for parameter in learned}
    others = [parameter for parameter in prepared.parameters() if id(parameter) not in own]
    groups = {
        "weights": ([p for p in others if _is_dense(p)], learning_rate, weight_decay),
        "biases": ([p for p in others if not _is_dense(p)], learning_rate, 0.0),
        "quantizers": (learned, quantizer_learning_rate, 0.0),
    }
    return [
        {"name": name, "params": params, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for name, (params, rate, decay) in groups.items()
        if params
    ]


def float_parameter_groups(module: nn.Module, schedule: Schedule) -> list[dict[str, Any]]:
    """Returns the parameters of a float module in the groups `weights` and `biases`.

    Only dense weights decay, as in `parameter_groups`.
    """
    parameters, rate = list(module.parameters()), schedule.learning_rate
    groups = {
        "weights": ([p for p in parameters if _is_dense(p)], schedule.weight_decay),
        "biases": ([p for p in parameters if not _is_dense(p)], 0.0),
    }
    return [
        {"name": name, "params": params, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for name, (params, decay) in groups.items()
        if params
    ]


def _is_dense(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and parameter.shape[1] > 1


def make_optimizer(groups: list[dict[str, Any]], settings: Schedule) -> torch.optim.Optimizer:
    """Returns the optimizer that the settings name, for groups of parameters on their device."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    momentum = settings.momentum
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=True)


class ScaleFloor:
    """Keeps learned scales above a limit, so that they stay positive."""

    def __init__(self, prepared: PreparedModel):
        quantizers = [module for module in prepared.modules() if isinstance(module, Quantizer)]
        self._scales: list[Tensor] = [
            q.scale for q in quantizers if isinstance(q.scale, nn.Parameter)
        ]
        self._floors = [scale.detach() * SMALLEST_SCALE for scale in self._scales]

    @torch.no_grad()
    def apply(self) -> None:
        """Raises scales that a step has moved below their limit."""
        for scale, floor in zip(self._scales, self._floors, strict=True):
            scale.clamp_(min=floor)

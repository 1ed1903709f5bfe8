"""Provides the teacher of a distillation, which is a float model."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from photomask.chip.graph.float_model import flat, takes_names
from photomask.chip.prepared_model import PreparedModel


def float_model(
    prepared: PreparedModel, teacher: nn.Module | None, device: torch.device
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns a float model on a device as a function that returns a tuple of outputs.

    Args:
        prepared: the prepared model, whose float graph is the teacher if no other is given.
        teacher: a model with the same inputs whose first output has the same shape, or None.
        device: the device of the teacher.
    """
    if teacher is None:
        graph = prepared.graph
        constants = {name: tensor.to(device) for name, tensor in graph.constants.items()}
        return replace(graph, constants=constants)
    moved = teacher.to(device).eval()
    by_name = takes_names(moved, prepared.graph.inputs)

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        if by_name:
            return tuple(flat(moved(**dict(zip(prepared.graph.inputs, inputs, strict=True)))))
        return tuple(flat(moved(*inputs)))

    return outputs

"""What a step minimises: one function of a batch, which can be compiled as a whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from photomask.chip.preparation import PreparedModel

Objective = Callable[[list[Tensor], Tensor | None], Tensor]
"""Inputs and labels of a batch → its loss, one number."""


def make_objective(
    prepared: PreparedModel,
    teacher: Callable[..., tuple[Tensor, ...]] | None,
    loss: Callable[..., Tensor],
    *,
    device: torch.device,
    bfloat16: bool,
) -> Objective:
    """Returns the loss of a batch: teacher, model and their difference.

    Args:
        prepared: the model that is trained.
        teacher: whose outputs are distilled; None for none.
        loss: of the model's outputs, the labels and the teacher's outputs or None.
        device: where they compute.
        bfloat16: whether layers compute in bfloat16.
    """

    def objective(inputs: list[Tensor], labels: Tensor | None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            taught = None
            if teacher is not None:
                with torch.no_grad():
                    taught = teacher(*inputs)
            outputs = prepared(*inputs)
        return loss(outputs, labels, taught)

    return objective


def compile_objective(objective: Objective, device: torch.device) -> Objective:
    """Returns the same function, compiled; on a GPU a step is then replayed as one CUDA graph.

    Quantizers are many small operations on large tensors: fused they read each tensor once, and
    replayed they do not wait for Python.
    """
    if device.type != "cuda":
        return torch.compile(objective)
    compiled = torch.compile(objective, mode="reduce-overhead")

    def replayed(inputs: list[Tensor], labels: Tensor | None) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(inputs, labels)

    return replayed

"""Makes the function that a training step minimizes, which can be compiled as a whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from photomask.chip.prepared_model import PreparedModel

Objective = Callable[[list[Tensor], Tensor | None], Tensor]
"""Returns the loss of a batch, [], from its inputs and labels."""


def make_objective(
    prepared: PreparedModel,
    teacher: Callable[..., tuple[Tensor, ...]] | None,
    loss: Callable[..., Tensor],
    *,
    device: torch.device,
    bfloat16: bool,
) -> Objective:
    """Returns the function that computes the loss of a batch.

    Args:
        prepared: the model that is trained.
        teacher: the model whose outputs are distilled, or None.
        loss: a function of the model's outputs, the labels, and the teacher's outputs or None.
        device: the device of the training.
        bfloat16: True if layers compute in bfloat16.
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
    """Returns the compiled function; on a GPU a step is then replayed as one CUDA graph.

    Quantizers are many small operations on large tensors. Fused, they read each tensor once, and
    replayed, they do not wait for Python.
    """
    if device.type != "cuda":
        return torch.compile(objective)
    compiled = torch.compile(objective, mode="reduce-overhead")

    def replayed(inputs: list[Tensor], labels: Tensor | None) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(inputs, labels)

    return replayed

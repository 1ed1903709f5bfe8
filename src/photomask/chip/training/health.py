"""Finds a loss or a gradient that is not finite."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

GPU_INTERVAL = 32
"""The number of steps between two checks on a GPU, because each check waits for the GPU."""


class Health:
    """Checks the loss and the gradients of every step.

    On a CPU each step is checked before its update. On a GPU many steps are checked together,
    after their updates.

    Args:
        module: the module that is trained.
        last_in_order: a function that returns which one of some parameters the module uses last;
            its gradient comes first.
        device: the device of the training.
    """

    def __init__(
        self,
        module: nn.Module,
        last_in_order: Callable[[list[str]], str],
        device: torch.device,
    ):
        self._module = module
        self._last_in_order = last_in_order
        self._interval = 1 if device.type == "cpu" else GPU_INTERVAL
        self._sizes: list[tuple[int, list[str], Tensor]] = []

    @torch.no_grad()
    def record(self, step: int, loss: Tensor) -> None:
        """Records the loss and the gradient norms of a step, without waiting for the device."""
        named = [(n, p.grad) for n, p in self._module.named_parameters() if p.grad is not None]
        foreach_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
        sizes = foreach_norm([gradient for _, gradient in named]) if named else []
        together = torch.stack([loss.detach().float(), *sizes])
        self._sizes.append((step, [name for name, _ in named], together))

    @property
    def is_due(self) -> bool:
        """True if enough steps were recorded for a check."""
        return len(self._sizes) >= self._interval

    def problem(self) -> str | None:
        """Returns a description of the first recorded number that is not finite, or None."""
        noted, self._sizes = self._sizes, []
        for step, names, sizes in noted:
            finite = torch.isfinite(sizes.cpu()).tolist()
            if not finite[0]:
                return f"in step {step} the loss is {float(sizes[0])}"
            bad = [name for name, fine in zip(names, finite[1:], strict=True) if not fine]
            if bad:
                more = f", nor those of {len(bad) - 1} more" if len(bad) > 1 else ""
                last = self._last_in_order(bad)
                return f"in step {step} the gradient of {last!r} is not finite{more}"
        return None

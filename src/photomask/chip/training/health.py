"""Finds a loss or a gradient that is not finite, and says where it originates."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from photomask.chip.graph.module_keys import node_name
from photomask.chip.graph.operations import Input
from photomask.chip.prepared_model import PreparedModel

GPU_INTERVAL = 32
"""The number of steps between two checks on a GPU, because each check waits for the GPU."""


class Health:
    """Checks the loss and the gradients of every step.

    On a CPU each step is checked before its update. On a GPU many steps are checked together,
    after their updates.

    Args:
        prepared: the model that is trained.
        device: the device of the training.
    """

    def __init__(self, prepared: PreparedModel, device: torch.device):
        self._prepared = prepared
        self._interval = 1 if device.type == "cpu" else GPU_INTERVAL
        self._sizes: list[tuple[int, list[str], Tensor]] = []

    @torch.no_grad()
    def record(self, step: int, loss: Tensor) -> None:
        """Records the loss and the gradient norms of a step, without waiting for the device."""
        named = [(n, p.grad) for n, p in self._prepared.named_parameters() if p.grad is not None]
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
                return f"in step {step} the gradient of {self._last(bad)!r} is not finite{more}"
        return None

    @torch.no_grad()
    def first_bad_edge(self, inputs: Sequence[Tensor]) -> str:
        """Computes a batch again, and returns a sentence that names the first edge with NaN.

        Infinity counts as well. Where all edges are finite, the sentence says so.
        """
        everything = copy.copy(self._prepared)
        graph = self._prepared.graph
        names = tuple(node.name for node in graph.nodes)
        everything.graph = replace(graph, outputs=names)
        for node, value in zip(graph.nodes, everything(*inputs), strict=True):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                what = "input" if isinstance(node.operation, Input) else "output of"
                source = f" ({node.source})" if node.source else ""
                return f"the first edge that is not finite is the {what} {node.name!r}{source}"
        return "all edges are finite; check the loss, its labels and its teacher"

    def _last(self, parameters: list[str]) -> str:
        """Returns the parameter that the forward pass uses last, whose gradient comes first."""
        readable = [node_name(name.removeprefix("weights.")) for name in parameters]
        nodes = self._prepared.graph.nodes
        ordered = [name for node in nodes for name in node.constants.values()]
        return max(readable, key=lambda name: ordered.index(name) if name in ordered else -1)

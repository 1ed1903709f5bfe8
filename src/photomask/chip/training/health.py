"""Finds a loss or a gradient that is not finite, and says where it came from."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from photomask.chip.graph.module_keys import node_name
from photomask.chip.graph.operations import Input
from photomask.chip.preparation import PreparedModel

GPU_INTERVAL = 32
"""Steps between two looks at a GPU's numbers: every look waits for all that it was given to do."""


class Health:
    """Watches the loss and the gradients of every step.

    On a CPU every step is looked at before its update; on a GPU many at a time, afterwards.

    Args:
        prepared: the model that is trained.
        device: where.
    """

    def __init__(self, prepared: PreparedModel, device: torch.device):
        self._prepared = prepared
        self._interval = 1 if device.type == "cpu" else GPU_INTERVAL
        self._sizes: list[tuple[int, list[str], Tensor]] = []

    @torch.no_grad()
    def record(self, step: int, loss: Tensor) -> None:
        """Notes the loss of a step and the size of each gradient, without waiting for them."""
        named = [(n, p.grad) for n, p in self._prepared.named_parameters() if p.grad is not None]
        foreach_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
        sizes = foreach_norm([gradient for _, gradient in named]) if named else []
        together = torch.stack([loss.detach().float(), *sizes])
        self._sizes.append((step, [name for name, _ in named], together))

    @property
    def is_due(self) -> bool:
        """True when it is time to look."""
        return len(self._sizes) >= self._interval

    def problem(self) -> str | None:
        """Looks at what was noted; says what was not finite first, and in which step."""
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
        """Computes a batch again; names the first edge that is not finite, or the loss itself."""
        everything = copy.copy(self._prepared)
        graph = self._prepared.graph
        names = tuple(node.name for node in graph.nodes)
        everything.graph = replace(graph, outputs=names)
        for node, value in zip(graph.nodes, everything(*inputs), strict=True):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                what = "input" if isinstance(node.operation, Input) else "output of"
                source = f" ({node.source})" if node.source else ""
                return f"the first edge that is not finite is the {what} {node.name!r}{source}"
        return "all edges are finite: look at the loss, its labels and its teacher"

    def _last(self, parameters: list[str]) -> str:
        """Returns the one that is computed with last: gradients flow backward from there."""
        readable = [node_name(name.removeprefix("weights.")) for name in parameters]
        nodes = self._prepared.graph.nodes
        ordered = [name for node in nodes for name in node.constants.values()]
        return max(readable, key=lambda name: ordered.index(name) if name in ordered else -1)

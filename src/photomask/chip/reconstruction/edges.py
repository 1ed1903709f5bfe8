"""Keeps the float and the quantized values of edges for all samples, block by block."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Tokens
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantized_computation import compute_quantized
from photomask.chip.reconstruction.blocks import Block
from photomask.report import NoiseMeter

PASS = 64
"""The number of samples that are computed at a time where nothing is learned."""

Constants = Mapping[str, Tensor]


def run_nodes(
    nodes: Sequence[Node],
    values: dict[str, Tensor],
    constants_of: Callable[[Node], Constants],
    settle: Callable[[Node, Tensor], Tensor],
) -> None:
    """Computes nodes as the integer operators do, and adds their settled outputs to `values`."""
    for node in nodes:
        operands = [values[name] for name in node.inputs]
        values[node.name] = settle(node, compute_quantized(node, operands, constants_of(node)))


@dataclass
class EdgeValues:
    """The values of the edges that blocks still read, for all samples.

    Attributes:
        prepared: the model of the edges; its weights are on `device`.
        device: the device on which blocks are computed.
        storage: the device that holds the values.
        float_values: the values of the float model.
        quantized_values: the values of the quantized model.
    """

    prepared: PreparedModel
    device: torch.device
    storage: torch.device
    float_values: dict[str, Tensor] = field(default_factory=dict)
    quantized_values: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The first block that has a shared weight rounds it in place. The float values of later
        # blocks need the weight as it was, so it is copied here.
        self._float_constants = {
            node.name: {
                role: tensor.detach().clone()
                for role, tensor in self.prepared.constants_of(node).items()
            }
            for node in self.prepared.graph.nodes
            if any(self.prepared.places_of(node, role) for role in node.constants)
        }

    def enter(self, inputs: Sequence[Tensor]) -> None:
        """Adds the values of the model's inputs, given as one tensor of all samples each."""
        graph = self.prepared.graph
        for name, x in zip(graph.inputs, inputs, strict=True):
            x = x.contiguous(memory_format=_layout(x.ndim, self.device))
            self.float_values[name] = x.to(self.storage)
            if isinstance(graph.by_name[name].operation, Tokens):
                self.quantized_values[name] = self.float_values[name]
                continue
            quantizer = self.prepared.activation_quantizer(name)
            parts = [quantizer(part.to(self.device)).to(self.storage) for part in x.split(PASS)]
            self.quantized_values[name] = torch.cat(parts)

    def add_float(self, block: Block) -> None:
        """Adds the float values of a block's exits, computed with its current weights.

        Weights that the model uses at several places have their initial values.
        """
        constants = {node.name: self.prepared.constants_of(node) for node in block.nodes}
        constants |= {n: c for n, c in self._float_constants.items() if n in constants}
        for rows, values in self._batches(block, self.float_values):
            for node in block.nodes:
                operands = [values[name] for name in node.inputs]
                values[node.name] = compute(node, operands, constants[node.name])
            self._store(self.float_values, block, rows, values)

    def add_quantized(self, block: Block) -> dict[str, NoiseMeter]:
        """Adds the quantized values of a block's exits, and returns the noise of each."""
        return self._quantized(block, store=True)

    def measure(self, block: Block) -> dict[str, NoiseMeter]:
        """Returns the noise of a block's exits with its current weights and quantizers."""
        return self._quantized(block, store=False)

    def noise(self, edges: Sequence[str]) -> NoiseMeter:
        """Returns the noise of the quantized values of edges against their float values."""
        meter = NoiseMeter()
        for edge in edges:
            meter.add(self.float_values[edge], self.quantized_values[edge])
        return meter

    def forget(self, kept: set[str]) -> None:
        """Deletes the values of all edges that are not in `kept`."""
        for values in (self.float_values, self.quantized_values):
            for name in [name for name in values if name not in kept]:
                del values[name]

    def rows_of(self, values: Mapping[str, Tensor], edge: str, rows: Tensor) -> Tensor:
        """Returns the values of some samples of an edge, on `device`."""
        return values[edge][rows].to(self.device, non_blocking=True)

    def _quantized(self, block: Block, *, store: bool) -> dict[str, NoiseMeter]:
        prepared, meters = self.prepared, {edge: NoiseMeter() for edge in block.exits}
        constants = {node.name: prepared.quantized_constants_of(node) for node in block.nodes}
        for rows, values in self._batches(block, self.quantized_values):
            run_nodes(block.nodes, values, lambda n: constants[n.name], prepared.settle)
            for edge, meter in meters.items():
                meter.add(self.float_values[edge][rows].to(self.device), values[edge])
            if store:
                self._store(self.quantized_values, block, rows, values)
        return meters

    def _batches(
        self, block: Block, source: Mapping[str, Tensor]
    ) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        samples = len(next(iter(source.values())))
        for start in range(0, samples, PASS):
            rows = slice(start, min(start + PASS, samples))
            yield rows, {edge: source[edge][rows].to(self.device) for edge in block.entries}

    def _store(
        self, target: dict[str, Tensor], block: Block, rows: slice, values: Mapping[str, Tensor]
    ) -> None:
        samples = len(next(iter(self.float_values.values())))
        for edge in block.exits:
            value = values[edge]
            if rows.start == 0:
                shape, layout = (samples, *value.shape[1:]), _layout(value.ndim, self.device)
                target[edge] = torch.empty(shape, device=self.storage, memory_format=layout)
            target[edge][rows] = value


def _layout(axes: int, device: torch.device) -> torch.memory_format:
    """Returns the fastest memory format of convolutions: channels-last for images on a CPU."""
    images = axes == 4 and device.type == "cpu"
    return torch.channels_last if images else torch.contiguous_format

"""Holds a plan of the channels that leave a model, which prints itself before it is applied."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from photomask.chip.graph import FloatGraph
from photomask.chip.graph.operations import Accumulates
from photomask.report import Shown, Table


@dataclass(frozen=True)
class LayerSize:
    """The size of a layer.

    Attributes:
        channels: its output channels; 0 for a product of two edges.
        parameters: the elements of its parameters.
        products: the multiplications of one sample, each with an accumulation.
    """

    channels: int = 0
    parameters: int = 0
    products: int = 0


@dataclass(frozen=True)
class StayingChannels:
    """Channels that cannot leave.

    Attributes:
        layer: the layer that computes them.
        count: their number.
        reason: why they stay.
    """

    layer: str
    count: int
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelPlan(Shown):
    """The channels that leave a model.

    Attributes:
        removed: by name of a layer, its output channels that leave, in ascending order. Norms and
            the layers that read the channels follow from the graph and are not listed.
        before: by name of a layer, its size in the model.
        after: by name of a layer, its size without the channels.
        parameters: the elements of all parameters of the model, before and after.
        staying: the channels that cannot leave, with the reasons.
        addends: by name of a layer, what is added to its bias in place of the channels, whose
            values are constants; None where the channels are zero or their values do not matter.
    """

    removed: Mapping[str, tuple[int, ...]]
    before: Mapping[str, LayerSize]
    after: Mapping[str, LayerSize]
    parameters: tuple[int, int]
    staying: Sequence[StayingChannels] = ()
    addends: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def products(self) -> tuple[int, int]:
        """The multiplications of one sample, each with an accumulation, before and after."""
        first, then = (sum(s.products for s in sizes.values()) for sizes in (self.before, self.after))
        return first, then

    def shown(self) -> Table:
        """Returns a row for each layer, before and after, and why channels stay."""
        head = ("layer", "channels", "", "parameters", "", "products", "")
        rows = [head]
        for name, size in self.before.items():
            then = self.after[name]
            pairs = [(size.channels, then.channels)] if size.channels else [("", "")]
            pairs += [(size.parameters, then.parameters), (size.products, then.products)]
            rows.append((name, *_cells(pairs)))
        rows.append(("total", *_cells([("", ""), self.parameters, self.products])))
        notes = [f"{s.count} channels of {s.layer} stay: {s.reason}" for s in self.staying]
        return Table("Channels before and after", rows, notes)


def _cells(pairs: Sequence[tuple[int | str, int | str]]) -> list[str]:
    return [f"{x:,}" if isinstance(x, int) else x for pair in pairs for x in pair]


def sizes_of(graph: FloatGraph, model: nn.Module) -> dict[str, LayerSize]:
    """Returns the size of each layer and of each product of two edges, by name.

    Args:
        graph: the captured model.
        model: the model.
    """
    found: dict[str, LayerSize] = {}
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for node in graph.nodes:
        operation = node.operation
        if operation.accumulates is Accumulates.WEIGHTED:
            weight = graph.constants[node.constants["weight"]]
            made = graph.made_of.get(node.constants["weight"])
            layer = layer_of(made[0].tensor) if made else node.name
            own = sum(count for name, count in parameters.items() if layer_of(name) == layer)
            products = math.prod(node.shape) * weight[0].numel()
            before = found.get(layer, LayerSize())
            found[layer] = LayerSize(len(weight), own, before.products + products)
        elif operation.accumulates is Accumulates.PRODUCTS and operation.sums:
            (axis,) = operation.summed_axes(0, graph.by_name[node.inputs[0]].shape)
            summed = graph.by_name[node.inputs[0]].shape[axis]
            found[node.name] = LayerSize(0, 0, math.prod(node.shape) * summed)
    return found


def layer_of(tensor: str) -> str:
    """Returns the name of the module that holds a tensor; of a bare parameter, its own name."""
    return tensor.rpartition(".")[0] or tensor

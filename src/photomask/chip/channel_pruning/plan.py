"""Holds a plan of the channels that leave a model, which prints itself before it is applied."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from photomask.chip.channel_pruning.coupling import Coupling
from photomask.chip.channel_pruning.groups import layer_of, module_of
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
        addends: by name of a layer, what is added to its bias in place of dead channels; None if
            the channels are not dead, so that the model computes other numbers without them.
    """

    removed: Mapping[str, tuple[int, ...]]
    before: Mapping[str, LayerSize]
    after: Mapping[str, LayerSize]
    parameters: tuple[int, int]
    staying: Sequence[StayingChannels] = ()
    addends: Mapping[str, Tensor] | None = None

    @property
    def products(self) -> tuple[int, int]:
        """The multiplications of one sample, each with an accumulation, before and after."""
        first, then = (
            sum(s.products for s in sizes.values()) for sizes in (self.before, self.after)
        )
        return first, then

    def shown(self) -> Table:
        """Returns a row for each layer, before and after, and why channels stay."""
        head = ("layer", "channels", "", "parameters", "", "products", "")
        rows: list[tuple[str, ...]] = [head]
        for name, size in self.before.items():
            then = self.after[name]
            pairs = [(size.channels, then.channels)] if size.channels else [("", "")]
            pairs += [(size.parameters, then.parameters), (size.products, then.products)]
            rows.append((name, *_cells(pairs)))
        rows.append(("total", *_cells([("", ""), self.parameters, self.products])))
        layers: dict[str, list[str]] = {}
        for stays in self.staying:
            layers.setdefault(stays.reason, []).append(f"{stays.layer} ({stays.count})")
        notes = [f"stay: {', '.join(names)}: {why}" for why, names in layers.items()]
        return Table("Channels before and after", rows, notes)


def _cells(pairs: Sequence[tuple[int | str, int | str]]) -> list[str]:
    return [f"{x:,}" if isinstance(x, int) else x for pair in pairs for x in pair]


def sizes_of(coupling: Coupling, model: nn.Module, removed: frozenset[int]) -> dict[str, LayerSize]:
    """Returns the size of each layer and of each product of two edges, by name.

    Args:
        coupling: the channels of the captured model.
        model: the model without the removed channels.
        removed: the sets of channels that were removed.
    """
    graph = coupling.graph
    found: dict[str, LayerSize] = {}
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for node in graph.nodes:
        operation = node.operation
        results = coupling.count_kept(node.name, removed)
        if operation.accumulates is Accumulates.WEIGHTED:
            weight = node.constants["weight"]
            rows, *others = graph.constants[weight].shape
            layer, elements = node.name, rows * math.prod(others)
            made = graph.made_of.get(weight)
            if made:
                layer = layer_of(made[0].tensor)
                rows -= coupling.count_cut(made[0], 0, removed)
                elements = rows * math.prod(others[1:])
                elements *= others[0] - coupling.count_cut(made[0], 1, removed)
            own = sum(n for name, n in parameters.items() if layer in (name, module_of(name)))
            products = results * elements // rows + found.get(layer, LayerSize()).products
            found[layer] = LayerSize(rows, own, products)
        elif operation.accumulates is Accumulates.PRODUCTS and operation.sums:
            before = graph.by_name[node.inputs[0]]
            (axis,) = operation.summed_axes(0, before.shape)
            summed = coupling.count_kept(before.name, removed, axis)
            found[node.name] = LayerSize(0, 0, results * summed)
    return found

"""Moves scale through products of activations: gated units, and the values of attention."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from photomask.chip.default_dtype import float32_by_default
from photomask.chip.equalization.channels import SMALLEST, Data, ranges_of
from photomask.chip.graph import Node
from photomask.chip.graph.operations import (
    Concatenate,
    Linear,
    Matmul,
    Multiply,
)
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect, changes
from photomask.report import Progress, without_progress


@dataclass(frozen=True)
class Passage:
    """A layer whose channels reach other layers, and nothing else, through products.

    Attributes:
        maker: the layer that computes the channels.
        readers: by name of a layer that reads the channels, the channel of the maker that is a
            factor of each of its inputs, int64 [inputs]. A channel may occur several times.
    """

    maker: Node
    readers: Mapping[str, Tensor]


@changes(Effect.REWRITES)
@float32_by_default()
def smooth_products(
    prepared: PreparedModel,
    data: Data,
    *,
    strength: float = 0.5,
    progress: Progress = without_progress,
) -> int:
    """Smooths layers whose outputs are factors of products, as `smooth` does for norms.

    A gated unit multiplies the output of a layer by a function of another layer's output, and
    attention computes weighted sums of a layer's values. A factor per channel passes through both.
    The rows of that layer are divided by `s_j = max|x_j|**a / max|w_j|**(1 - a)`, and the columns
    of the layers after the product are multiplied by it. Here `x` is the input of these layers and
    `a` is `strength`. Heads that share values share factors. A cache then holds values divided by
    their factors. The scales are undecided afterwards, so `calibrate` has to follow.

    Args:
        prepared: the model, which is changed in place and need not be calibrated.
        data: the data, as for `calibrate`.
        strength: the exponent `a`. With 0 the columns of the weights get equal ranges, with 1 the
            channels of the activations do.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Returns:
        The number of layers that were smoothed.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the weights are rounded already.

    Source: equation 4 of SmoothQuant, Xiao et al. 2023, arXiv:2211.10438, which smooths only norms.
    OmniQuant, Shao et al. 2024, section 3.3, arXiv:2308.13137, learns such factors, also for
    values, queries and keys.
    """
    passages = passages_of(prepared)
    nodes = prepared.graph.by_name
    inputs = {name: nodes[name].inputs[0] for way in passages for name in way.readers}
    ranges = ranges_of(prepared, data, set(inputs.values()), progress)
    with torch.no_grad():
        for way in passages:
            maker = prepared.constants_of(way.maker)
            x, w = (torch.full((len(maker["weight"]),), SMALLEST) for _ in range(2))
            for name, channels in way.readers.items():
                columns = prepared.constants_of(nodes[name])["weight"].abs().amax(dim=0)
                x = x.scatter_reduce(0, channels, ranges[inputs[name]].to(x), "amax")
                w = w.scatter_reduce(0, channels, columns.to(w), "amax")
            scale = (x**strength / w ** (1 - strength)).to(maker["weight"])
            prepared.set_constant(way.maker.name, "weight", maker["weight"] / scale[:, None])
            prepared.set_constant(way.maker.name, "bias", maker["bias"] / scale)
            for name, channels in way.readers.items():
                weight = prepared.constants_of(nodes[name])["weight"]
                columns = scale[channels.to(scale.device)]
                prepared.set_constant(name, "weight", weight * columns)
    return len(passages)


def passages_of(prepared: PreparedModel) -> list[Passage]:
    """Returns the layers whose channels reach other layers only through products."""
    found = []
    for node in prepared.graph.nodes:
        if isinstance(node.operation, Linear) and node.clamp is None and _is_own(prepared, node):
            readers = _readers(prepared, node)
            if readers:
                found.append(Passage(node, readers))
    return found


def _is_own(prepared: PreparedModel, node: Node) -> bool:
    """Tells whether no other node of the model has the same weight or the same bias."""
    return not (prepared.places_of(node, "weight") or prepared.places_of(node, "bias"))


def _readers(prepared: PreparedModel, maker: Node) -> dict[str, Tensor]:
    """Returns the layers that read a maker's channels; none if a factor cannot pass to them."""
    graph = prepared.graph
    seeds = {maker.name: torch.arange(maker.shape[-1]).expand(maker.shape)}
    while True:
        walked = _walk(prepared, seeds)
        if walked is None:
            return {}
        channels, readers = walked
        at = {name: graph.outputs[output] for name, output in prepared.states.items()}
        new = {name: out for name, out in at.items() if out in channels and name not in seeds}
        if not new:
            break
        # The cache holds values of the same channels from earlier chunks.
        for name, output in new.items():
            seeds[name] = channels[output][..., :1, :].expand(graph.by_name[name].shape)
    handed_on = {graph.outputs[output] for output in prepared.states.values()}
    seen = {name for name in graph.outputs if name in channels}
    return readers if seen <= handed_on else {}


def _walk(
    prepared: PreparedModel, seeds: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Follows channels through the graph, as tensors that hold the channel of each element.

    Args:
        prepared: the model.
        seeds: by edge, the channel of each element at which the walk starts.

    Returns:
        The channels of each edge that was reached, and those of the inputs of layers after a
        product; None where a factor cannot pass. Edges after a cache are followed once the state
        of the cache is among the seeds.
    """
    channels, readers = dict(seeds), {}
    direct = set(seeds)
    for node in prepared.graph.nodes:
        if node.name in seeds or not any(name in channels for name in node.inputs):
            continue
        if isinstance(node.operation, Linear):
            rows = channels[node.inputs[0]].reshape(-1, _width(prepared, node))
            if node.inputs[0] in direct or not _same(rows, 0) or not _is_own(prepared, node):
                return None
            readers[node.name] = rows[0]
            continue
        if isinstance(node.operation, Concatenate) and _waits(prepared, node, channels):
            continue
        found = _passed_on(node, channels)
        if found is None or node.clamp is not None:
            return None
        channels[node.name] = found
        if node.operation.moves and direct.intersection(node.inputs):
            direct.add(node.name)
    return channels, readers


def _width(prepared: PreparedModel, node: Node) -> int:
    """Returns the number of input channels of a layer."""
    return prepared.constants_of(node)["weight"].shape[1]


def _waits(prepared: PreparedModel, node: Node, channels: Mapping[str, Tensor]) -> bool:
    """Tells whether a concatenation appends channels to a cache that is not followed yet."""
    missing = [name for name in node.inputs if name not in channels]
    outputs = prepared.graph.outputs
    return bool(missing) and all(
        name in prepared.states and outputs[prepared.states[name]] in channels for name in missing
    )


def _passed_on(node: Node, channels: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the channel that is a factor of each element of a node's output.

    None stands for an output of which no channel is a factor.
    """
    inputs = [channels.get(name) for name in node.inputs]
    known = [ids for ids in inputs if ids is not None]
    match node.operation:
        case Multiply() if len(known) == 1 and len(inputs) == 2:
            return known[0].expand(node.shape)
        case Matmul() if inputs[0] is None and _same(known[0], -2):
            return known[0][..., :1, :].expand(node.shape)
        case operation if operation.moves and len(known) == len(inputs):
            return operation.compute([ids.double() for ids in known], {}).to(torch.int64)
    return None


def _same(ids: Tensor, axis: int) -> bool:
    """Tells whether all elements along an axis belong to one channel."""
    return bool((ids == ids.narrow(axis, 0, 1)).all())

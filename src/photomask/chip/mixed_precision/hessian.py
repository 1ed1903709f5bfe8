"""Estimates the trace of a network's Hessian for each layer, without computing the Hessian."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Input

PROBES = 8
"""The number of random vectors per batch."""


def hessian_traces(
    graph: FloatGraph,
    layers: Sequence[Node],
    batches: Sequence[Sequence[Tensor]],
    *,
    probes: int = PROBES,
) -> dict[str, float]:
    """Returns an estimate of the trace of each layer's block of the Hessian.

    It is the Hessian of the divergence from the current outputs,
    `L(w) = mean over samples of KL(softmax(y) || softmax(y(w)))`, where `y` are the current outputs
    and `y(w)` those for the weights `w`. At the current weights it is exactly

        H = mean over samples of J' F J
        F = diag(p) - p p' = R R',   R = diag(sqrt(p)) - p sqrt(p)'

    where `J` is the Jacobian of the outputs and `p = softmax(y)`. Hutchinson's estimate of
    `trace(R' J J' R) = trace(J' F J)`, with random signs `u` for each sample, is

        trace(H) = E |sum over samples of J' R u|**2 / samples

    It takes one ordinary gradient for all layers at once, and is never negative.

    Args:
        graph: the graph, with the weights of interest.
        layers: the nodes whose weights are examined.
        batches: batches of inputs of the graph.
        probes: the number of random vectors per batch, which are drawn from a fixed seed.

    Returns:
        The traces by name of the layer.

    Source: Hutchinson 1990; HAWQ-V2, Dong et al. 2020, algorithm 1, arXiv:1911.03852. The latter
    computes `v' H v` with random `v` over the weights, by a second derivative.
    """
    generator = torch.Generator().manual_seed(0)
    traces = dict.fromkeys((node.name for node in layers), 0.0)
    samples = sum(len(inputs[0]) for inputs in batches)
    for inputs in batches:
        outputs, weights = _outputs(graph, layers, inputs)
        for _ in range(probes):
            signs = [_signs(y, generator) for y in outputs]
            for name, part in zip(traces, probe(outputs, weights, signs), strict=True):
                traces[name] += part / (samples * probes)
    return traces


def probe(
    outputs: Sequence[Tensor], weights: Sequence[Tensor], signs: Sequence[Tensor]
) -> list[float]:
    """Returns `|sum over samples of J' R u|**2` for each weight.

    Args:
        outputs: scores with an autograd graph, with the classes along the last axis.
        weights: the leaves of that graph.
        signs: the random signs `u`, in the shapes of the outputs.
    """
    vectors = []
    for y, sign in zip(outputs, signs, strict=True):
        p = y.detach().softmax(dim=-1)
        root = p.sqrt()
        vectors.append(root * sign - p * (root * sign).sum(dim=-1, keepdim=True))
    slopes = torch.autograd.grad(
        outputs, weights, vectors, retain_graph=True, materialize_grads=True
    )
    return [float(slope.double().square().sum()) for slope in slopes]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1


def _outputs(
    graph: FloatGraph, layers: Sequence[Node], inputs: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the outputs of the float graph, and the weights as leaves of their autograd graph."""
    names = {node.constants["weight"]: node.name for node in reversed(layers)}
    leaves = {
        node.name: graph.constants_of(node)["weight"].detach().clone().requires_grad_()
        for node in layers
    }
    values = dict(zip(graph.inputs, inputs, strict=True))
    with torch.enable_grad():
        for node in graph.nodes:
            if not isinstance(node.operation, Input):
                constants = graph.constants_of(node)
                if constants.keys() >= {"weight"} and node.constants["weight"] in names:
                    constants["weight"] = leaves[names[node.constants["weight"]]]
                operands = [values[name] for name in node.inputs]
                values[node.name] = compute(node, operands, constants)
    return [values[name] for name in graph.outputs], list(leaves.values())

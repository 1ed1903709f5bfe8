"""Measures what pruners ask for beside the weights: gradients, and the norms of inputs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from photomask.chip.calibration import batches_of, input_forms
from photomask.chip.data import Data, read_batches
from photomask.chip.graph import Node
from photomask.chip.graph.module_keys import module_key
from photomask.chip.graph.operations import Convolution
from photomask.chip.labels import class_labels, label_tensor
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.pruning.base import PrunableWeight, Pruner
from photomask.errors import DataError, UsageError
from photomask.report import Progress

Loss = Callable[[tuple[Tensor, ...], Tensor], Tensor]
"""Returns the mean loss over the samples, [], from the model's outputs and the labels."""
BATCH = 32
"""The number of samples that are computed at a time where the data is one tensor."""


def measured_weights(
    prepared: PreparedModel,
    layers: Sequence[Node],
    pruner: Pruner,
    data: Data | None,
    loss: Loss | None,
    progress: Progress,
) -> list[PrunableWeight]:
    """Returns the weights of layers, with what a pruner needs.

    Raises:
        UsageError: the pruner needs data or labels, and there are none.
        DataError: the data do not fit the model, or a gradient is not finite.
    """
    found = [replace(prunable(prepared, node), gradient=None) for node in layers]
    if not pruner.needs:
        return _without_norms(prepared, layers, found)
    if data is None:
        raise UsageError(
            f"{type(pruner).__name__} measures {' and '.join(sorted(pruner.needs))}; give data: "
            "prune(prepared, pruner, data)"
        )
    if pruner.needs_inputs:
        norms = _input_norms(prepared, layers, data, progress)
        found = [replace(w, input_norms=norms[w.layer]) for w in found]
    if "gradients" in pruner.needs:
        slopes = _gradients(prepared, layers, data, loss)
        found = [replace(w, gradient=slope) for w, slope in zip(found, slopes, strict=True)]
    return _without_norms(prepared, layers, found)


def _without_norms(
    prepared: PreparedModel, layers: Sequence[Node], weights: Sequence[PrunableWeight]
) -> list[PrunableWeight]:
    return [without_norm(prepared, n, w) for n, w in zip(layers, weights, strict=True)]


def prunable(prepared: PreparedModel, node: Node) -> PrunableWeight:
    """Returns the parameter of a layer's weight with its mask and the gradient that it has now."""
    parameter, mask = prepared.parameter_of(node), prepared.mask_of(node)
    if mask is None:
        mask = torch.ones_like(parameter, dtype=torch.bool)
    return PrunableWeight(node.name, parameter.detach(), mask, gradient=parameter.grad)


def without_norm(prepared: PreparedModel, node: Node, weight: PrunableWeight) -> PrunableWeight:
    """Returns a weight as it is without the norm that was folded into it.

    Folding multiplies each output by a factor `f`, so `W = weight / f`, and its gradient is
    `gradient * f`. The factor says nothing about the weights of one output beside those of another,
    which pruners compare.
    """
    factors = prepared.graph.norm_factors.get(prepared.graph.tensor_of(node.constants["weight"]))
    if factors is None or module_key(node.name) in prepared.batch_norms:
        return weight
    rows = factors.to(weight.weight).reshape(-1, *(1,) * (weight.weight.ndim - 1))
    slope = weight.gradient
    return replace(
        weight, weight=weight.weight / rows, gradient=None if slope is None else slope * rows
    )


def _input_norms(
    prepared: PreparedModel, layers: Sequence[Node], data: Data, progress: Progress
) -> dict[str, Tensor]:
    """Returns the norm of each input over all samples and positions, by layer.

    Several layers with one weight are measured together.
    """
    wanted = {prepared.weight_owner(n.name) for n in layers}
    squares: dict[str, Tensor] = {}
    with torch.no_grad():
        for inputs in batches_of(prepared, data, progress, "measuring inputs"):
            values = dict(zip(prepared.graph.inputs, inputs, strict=True))
            for node, value in prepared.graph.run(inputs, prepared.constants_of):
                values[node.name] = value
                if "weight" not in node.constants:
                    continue
                owner = prepared.weight_owner(node.name)
                if owner in wanted:
                    part = _squares(node, values[node.inputs[0]], prepared.parameter_of(node))
                    squares[owner] = squares.get(owner, 0) + part
    if not squares:
        raise DataError("measuring inputs needs at least one sample, but the data holds none")
    return {name: total.sqrt().float() for name, total in squares.items()}


def _squares(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    """Returns the sums of squared inputs, in a shape that broadcasts against the weight."""
    if not isinstance(node.operation, Convolution):
        return x.detach().double().square().reshape(-1, x.shape[-1]).sum(dim=0)[None, :]
    sums = x.detach().double().square().transpose(0, 1).flatten(1).sum(dim=1)
    groups = node.operation.groups
    rows = sums.reshape(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return rows.reshape(*rows.shape, *(1,) * (weight.ndim - 2))


def _gradients(
    prepared: PreparedModel, layers: Sequence[Node], data: Data, loss: Loss | None
) -> list[Tensor]:
    """Returns the mean gradients of a loss over labelled data, computed in float."""
    parameters = [prepared.parameter_of(node) for node in layers]
    totals = [torch.zeros_like(p) for p in parameters]
    samples, last = 0, set(prepared.graph.outputs)
    forms = input_forms(prepared.graph, prepared.device)
    for batch in read_batches(forms, data, what="data of a pruning", size=BATCH):
        if batch.labels is None:
            raise UsageError(
                "the gradient of a loss needs labels; give data with labels, such as "
                "(images, labels), or use a pruner that needs none, such as Wanda"
            )
        with torch.enable_grad():
            values = {
                node.name: value
                for node, value in prepared.graph.run(batch.inputs, prepared.constants_of)
                if node.name in last
            }
            outputs = tuple(values[name] for name in prepared.graph.outputs)
            value = _loss_of(loss, outputs, batch.labels)
            slopes: tuple[Any, ...] = torch.autograd.grad(value, parameters, allow_unused=True)
        count = len(batch.inputs[0])
        samples += count
        for total, slope in zip(totals, slopes, strict=True):
            if slope is not None:
                total += slope * count
    if not samples:
        raise DataError("measuring gradients needs at least one sample, but the data holds none")
    for node, total in zip(layers, totals, strict=True):
        if not bool(total.isfinite().all()):
            raise DataError(
                f"the gradient of the weight of {node.name!r} is not finite on these data"
            )
    return [total / samples for total in totals]


def _loss_of(loss: Loss | None, outputs: tuple[Tensor, ...], labels: object) -> Tensor:
    if loss is not None:
        return loss(outputs, label_tensor(labels, "labels").to(outputs[0].device))
    classes = class_labels(labels, outputs[0].shape[1:], len(outputs[0]), "labels")
    return torch.nn.functional.cross_entropy(outputs[0].float(), classes.to(outputs[0].device))

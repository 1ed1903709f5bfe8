"""Runs a network node by node as Deeploy computes it: in integers of 32 bits.

Source: the kernels that the bindings in `Targets/Generic` of Deeploy 0.2.1 call.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from photomask.chip.forms.onnx_builder import onnx_package

if TYPE_CHECKING:
    import onnx

LARGEST = (1 << 31) - 1
"""The largest number that 32 bits hold."""


def run_network(
    model: "onnx.ModelProto", inputs: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Runs a network on one sample.

    Args:
        model: a model with the operators that this form writes.
        inputs: int64 codes by name.

    Returns:
        int64 values by name, and a problem for each node whose results exceed 32 bits.

    Raises:
        ValueError: the model has another operator, or inputs and attributes that an operator does
            not take.
    """
    to_array = onnx_package().numpy_helper.to_array
    read = onnx_package().helper.get_attribute_value
    values = {t.name: to_array(t).astype(np.int64) for t in model.graph.initializer} | inputs
    problems = []
    for node in model.graph.node:
        attributes = {attribute.name: read(attribute) for attribute in node.attribute}
        if missing := [name for name in node.input if name not in values]:
            raise ValueError(f"the node {node.name!r} reads {missing}, which no node computes")
        result, largest = _computed(node.op_type, [values[name] for name in node.input], attributes)
        if largest > LARGEST:
            problems.append(f"the node {node.name!r} computes {largest}, which exceeds 32 bits")
        values[node.output[0]] = result
    return values, problems


def _computed(
    kind: str, inputs: Sequence[np.ndarray], attributes: dict[str, Any]
) -> tuple[np.ndarray, int]:
    """Returns the result of a node, and the largest magnitude that occurs on the way."""
    if kind == "RequantShift":
        to_array, (x, mul, add) = onnx_package().numpy_helper.to_array, inputs
        return requant_shift(x, mul, add, **{k: int(to_array(v)) for k, v in attributes.items()})
    match kind:
        case "Reshape":
            result = inputs[0].reshape(inputs[1])
        case "Transpose":
            result = inputs[0].transpose(attributes["perm"])
        case "Add":
            result = inputs[0] + inputs[1]
        case "Mul":
            result = inputs[0] * inputs[1]
        case "Gemm":
            result = inputs[0] @ inputs[1].T + inputs[2]
        case "Conv":
            weight = torch.from_numpy(inputs[1]).double()
            x = _padded(inputs[0], attributes["pads"])
            strides, groups = attributes["strides"], attributes["group"]
            result = _integers(functional.conv2d(x, weight, stride=strides, groups=groups))
        case "MaxPool":
            x = _padded(inputs[0], attributes["pads"])
            kernel, strides = attributes["kernel_shape"], attributes["strides"]
            result = _integers(functional.max_pool2d(x, kernel, strides))
        case _:
            raise ValueError(f"the operator {kind!r} is not one that this form writes")
    return result, int(np.abs(result).max())


def _padded(x: np.ndarray, pads: Sequence[int]) -> torch.Tensor:
    """Returns a feature map with zeros around it, in float64, which holds integers of 53 bits."""
    top, left, bottom, right = pads
    return functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))


def _integers(y: torch.Tensor) -> np.ndarray:
    return y.numpy().astype(np.int64)


def requant_shift(
    x: np.ndarray, mul: np.ndarray, add: np.ndarray, div: int, n_levels: int, signed: int
) -> tuple[np.ndarray, int]:
    """Computes RequantShift on int64.

    `clip((x * mul + add + div / 2) >> log2(div), low, low + n_levels - 1)`, where `low` is 0, or
    `-n_levels / 2` if `signed`.

    Args:
        x: int64, [N, C, ...].
        mul: int64, broadcasts against a sample of `x`.
        add: int64, of the shape of `mul`.
        div: a power of two, at least 2.
        n_levels: the number of codes.
        signed: 0 or 1.

    Returns:
        The codes, and the largest magnitude on the way, which Deeploy's 32 bits must hold.

    Raises:
        ValueError: `div` is not a power of two, or is less than 2.
    """
    if div < 2 or div & (div - 1):
        raise ValueError(f"div is {div}, expected a power of two that is at least 2")
    products = x * mul
    sums = products + add + div // 2
    low = -(n_levels // 2) if signed else 0
    codes = np.clip(sums >> (div.bit_length() - 1), low, low + n_levels - 1)
    return codes, max(int(np.abs(products).max()), int(np.abs(sums).max()))

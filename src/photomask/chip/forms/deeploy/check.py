"""A network of Deeploy, run node by node as Deeploy computes: in integers, in 32 bits.

Source: Deeploy 0.2.1, `Targets/Generic`: the kernels that its bindings call.
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
"""Of what 32 bits hold."""


def run_network(
    model: "onnx.ModelProto", inputs: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Runs a network on one sample.

    Args:
        model: of the operators that this form writes.
        inputs: int64 codes by name.

    Returns:
        int64 values by name, and the nodes whose results leave 32 bits.

    Raises:
        ValueError: an operator is another, or its inputs and attributes are none that it takes.
    """
    to_array = onnx_package().numpy_helper.to_array
    read = onnx_package().helper.get_attribute_value
    values = {t.name: to_array(t).astype(np.int64) for t in model.graph.initializer} | inputs
    problems = []
    for node in model.graph.node:
        attributes = {attribute.name: read(attribute) for attribute in node.attribute}
        if missing := [name for name in node.input if name not in values]:
            raise ValueError(f"node {node.name!r} reads {missing}, which nothing makes")
        result, largest = _computed(node.op_type, [values[name] for name in node.input], attributes)
        if largest > LARGEST:
            problems.append(f"node {node.name!r} computes {largest}, which 32 bits do not hold")
        values[node.output[0]] = result
    return values, problems


def _computed(
    kind: str, inputs: Sequence[np.ndarray], attributes: dict[str, Any]
) -> tuple[np.ndarray, int]:
    """Returns what a node computes, and the largest magnitude on the way."""
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
            raise ValueError(f"operator {kind!r} is none that this form writes")
    return result, int(np.abs(result).max())


def _padded(x: np.ndarray, pads: Sequence[int]) -> torch.Tensor:
    """Returns a feature map with zeros around it, in float64, which holds 53 bits."""
    top, left, bottom, right = pads
    return functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))


def _integers(y: torch.Tensor) -> np.ndarray:
    return y.numpy().astype(np.int64)


def requant_shift(
    x: np.ndarray, mul: np.ndarray, add: np.ndarray, div: int, n_levels: int, signed: int
) -> tuple[np.ndarray, int]:
    """Computes RequantShift on int64.

    `clip((x * mul + add + div / 2) >> log2(div), low, low + n_levels - 1)` with `low` 0, or
    `-n_levels / 2` where `signed`.

    Args:
        x: int64, [N, C, ...].
        mul: int64, broadcasts against a sample of `x`.
        add: int64, the shape of `mul`.
        div: a power of two, at least 2.
        n_levels: number of codes.
        signed: 0 or 1.

    Returns:
        Codes, and the largest magnitude on the way, which Deeploy's 32 bits must hold.

    Raises:
        ValueError: `div` is no such power.
    """
    if div < 2 or div & (div - 1):
        raise ValueError(f"div {div} is no power of two from 2 on")
    products = x * mul
    sums = products + add + div // 2
    low = -(n_levels // 2) if signed else 0
    codes = np.clip(sums >> (div.bit_length() - 1), low, low + n_levels - 1)
    return codes, max(int(np.abs(products).max()), int(np.abs(sums).max()))

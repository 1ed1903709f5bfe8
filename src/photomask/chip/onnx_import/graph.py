"""Builds the float graph of a file: its nodes, their scales from the file, and constants."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from photomask.chip.conversion.builder import Scale
from photomask.chip.formats import IntFormat
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.operations import (
    Clamp,
    Constant,
    Copy,
    Gather,
    Operation,
    Pad,
    Pointwise,
    PointwiseFunction,
)
from photomask.chip.onnx_import.rounding import code_of
from photomask.chip.onnx_import.shapes import output_shape
from photomask.chip.onnx_import.tensors import shortened
from photomask.chip.onnx_import.values import CannotImport, Dequantized, Real, Value

MOST_ELEMENTS = 1 << 28
"""The most elements of one activation of one sample."""
MOST_COPIES, SPARE_ELEMENTS = 8, 1 << 22
"""How often a file's constants may be computed anew, and the elements allowed beyond that."""
MOST_EXTENT = 1 << 16
"""The most elements along one axis of an activation."""


@dataclass(frozen=True)
class Rescale(Copy):
    """Changes the scale of values, as a QuantizeLinear directly after a DequantizeLinear does."""

    takes_clamp: ClassVar[bool] = True


@dataclass
class GraphBuilder:
    """Collects the nodes of a `FloatGraph`, with the scales that the file gives them.

    Attributes:
        file: the name of the file, for sources.
        readers: the number of readers of every tensor of the file; an output of the graph counts as
            two.
        quantizing: the tensors that a QuantizeLinear reads.
        input_formats: the formats of inputs that are codes.
        weights: the weights of the file, by the node that multiplies by them.
        biased: the nodes with weights that have a bias.
        budget: the number of elements that may still be computed from the file's constants.
    """

    file: str
    readers: Counter[str]
    quantizing: set[str]
    nodes: dict[str, Node] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    """The scales, by the node that owns the scale."""
    weights: dict[str, Dequantized] = field(default_factory=dict)
    biased: set[str] = field(default_factory=set)
    budget: int = SPARE_ELEMENTS
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    input_formats: dict[str, IntFormat] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)
    _operands: dict[tuple[str, int], str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _copies: Counter[str] = field(default_factory=Counter)

    def emit(
        self,
        tensor: str,
        source: str,
        operation: Operation,
        inputs: Sequence[str] = (),
        constants: dict[str, np.ndarray] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Real:
        """Adds a float node.

        Args:
            tensor: the name of the node's output in the file.
            source: the name of the node in the file.
            operation: the float operation.
            inputs: the names of the float nodes that it reads.
            constants: the constants by role, float64.
            shape: the shape for one sample; None computes it.

        Raises:
            CannotImport: the operation does not support the shapes, or an activation is too large.
        """
        name = self._unique(tensor)
        held = {role: torch.from_numpy(array) for role, array in (constants or {}).items()}
        if shape is None:
            shapes = [self.nodes[name].shape for name in inputs]
            shape = output_shape(operation, shapes, held)
        check_shape(shape)
        origin = f"{self.file}:{shortened(source).replace('/', '.')}"
        self.spend(sum(array.size for array in (constants or {}).values()))
        if isinstance(operation, Gather):
            self.spend(len(operation.index))
        roles = {role: f"{name}.{role}" for role in held}
        self.constants |= {roles[role]: held[role] for role in held}
        self.nodes[name] = Node(name, operation, tuple(inputs), roles, shape, origin)
        self._owners[name] = self._owners[inputs[0]] if operation.keeps_scale else name
        return Real(name)

    def spend(self, elements: int) -> None:
        """Subtracts elements from the budget, before they take memory and time.

        Raises:
            CannotImport: the file's constants grow to far more elements than the file holds.
        """
        self.budget -= elements
        if self.budget < 0:
            raise CannotImport(
                f"it computes {elements} more elements from the file's constants, which is far "
                "more than the file holds; compute constants before the export"
            )

    def _unique(self, tensor: str) -> str:
        """Returns a unique name that is valid for modules, files and programming languages."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", tensor)[:80].strip("_") or "tensor"
        if base[0].isdigit() or hasattr(torch.nn.ModuleDict, base):
            base = f"tensor_{base}"
        name = base
        while name in self._taken:
            self._copies[base] += 1
            name = f"{base}_{self._copies[base] + 1}"
        self._taken.add(name)
        return name

    def shape(self, value: Real) -> tuple[int, ...]:
        """Returns the shape of one sample, including the batch axis of size 1."""
        return self.nodes[value.node].shape

    def scale(self, node: str) -> Scale | None:
        """Returns the scale of a node's values, or None before a QuantizeLinear was imported."""
        return self.scales.get(self._owners[node])

    def known_scale(self, node: str) -> Scale:
        """Returns the scale of a quantized node's values.

        Raises:
            CannotImport: no QuantizeLinear has quantized the node.
        """
        scale = self.scale(node)
        if scale is None:
            raise CannotImport(f"its input {node!r} is not quantized")
        return scale

    def set_scale(self, node: str, scale: Scale) -> None:
        """Sets the scale of a node, and of the node that its values are moved from."""
        owner = self._owners[node]
        found = self.nodes[owner]
        if isinstance(found.operation, Rescale) and self.scale(found.inputs[0]) == scale:
            # The scales are equal, so the rescaling does nothing and only its clamp remains.
            clamp = found.clamp or Clamp(-math.inf, math.inf)
            self.nodes[owner] = replace(found, operation=clamp, clamp=None)
            for name, old in self._owners.items():
                if old == owner:
                    self._owners[name] = self._owners[found.inputs[0]]
            return
        self.scales[owner] = scale

    def is_only_read_once(self, tensor: str) -> bool:
        """Tells whether a tensor of the file has exactly one reader, which may merge with it."""
        return self.readers[tensor] == 1

    def is_quantized_next(self, tensor: str) -> bool:
        """Tells whether the only reader of a tensor of the file is a QuantizeLinear."""
        return self.readers[tensor] == 1 and tensor in self.quantizing

    def replace(self, node: str, tensor: str, **changes: Any) -> Real:
        """Replaces a node without readers by one that computes another tensor of the file."""
        name = self._unique(tensor)
        self.nodes[name] = replace(self.nodes.pop(node), name=name, **changes)
        del self._owners[node]
        self._owners[name] = name
        if node in self.weights:
            self.weights[name] = self.weights.pop(node)
        return Real(name)

    def quantized(self, value: Value, tensor: str) -> str:
        """Returns the float node of a quantized activation.

        Raises:
            CannotImport: the operand is a constant, or no QuantizeLinear has quantized it.
        """
        if not isinstance(value, Real):
            raise CannotImport(f"its input {tensor!r} must be a quantized activation")
        if not value.exact:
            raise CannotImport(
                f"it reads {tensor!r} before a QuantizeLinear and a DequantizeLinear have "
                "quantized it"
            )
        return value.node

    def operand(self, value: Value, tensor: str, rank: int) -> str:
        """Returns the float node of a quantized operand, which may be a quantized constant.

        Args:
            value: the operand.
            tensor: the name of the operand.
            rank: the number of axes of the result. A constant with fewer axes gets axes of size 1
                in front.

        Raises:
            CannotImport: the operand is not quantized, or a constant has several scales or a batch.
        """
        if not isinstance(value, Dequantized):
            return self.quantized(value, tensor)
        if value.scale.size != 1:
            raise CannotImport(
                f"its constant {tensor!r} has more than one scale; only weights may have several"
            )
        if (tensor, rank) in self._operands:
            return self._operands[tensor, rank]
        codes = value.codes.reshape((1,) * max(0, rank - value.codes.ndim) + value.codes.shape)
        if codes.ndim > rank or codes.shape[:1] != (1,):
            raise CannotImport(f"its constant {tensor!r} of shape {codes.shape} has a batch axis")
        real = Dequantized(codes, value.scale.reshape(()), value.zero_point.reshape(()), None,
                           value.format)  # fmt: skip
        node = self.emit(tensor, tensor, Constant(), constants={"value": real.real()}).node
        self.scales[node] = scale_of(real)
        self._operands[tensor, rank] = node
        return node

    def finish(self, outputs: Sequence[str]) -> FloatGraph:
        """Returns the graph, without nodes that no output needs.

        All scales are known now, so bounds and padding are rounded as QuantizeLinear rounds them.
        """
        nodes = tuple(self._settled(node) for node in self.nodes.values())
        return FloatGraph(nodes, tuple(outputs), self.constants).pruned()

    def _settled(self, node: Node) -> Node:
        scale = self.scale(node.name)
        operation = node.operation
        clamp = node.clamp
        if scale is None:
            return node
        if clamp is not None:
            clamp = _represented(clamp, scale)
        if isinstance(operation, Clamp):
            operation = _represented(operation, scale)
        elif isinstance(operation, Pad):
            operation = replace(operation, value=_nearest(operation.value, scale))
        elif isinstance(operation, Pointwise):
            lowest = PointwiseFunction("lowest_if_not_a_number", _lowest_if_not_a_number)
            operation = replace(operation, functions=(*operation.functions, lowest))
        return replace(node, operation=operation, clamp=clamp)


def _represented(clamp: Clamp, scale: Scale) -> Clamp:
    return Clamp(_nearest(clamp.low, scale), _nearest(clamp.high, scale))


def _nearest(value: float, scale: Scale) -> float:
    """Returns the exact value of the code that QuantizeLinear gives a real number."""
    if math.isinf(value):
        return value
    return (code_of(value, scale) - scale.zero_point) * scale.scale


def _lowest_if_not_a_number(x: torch.Tensor) -> torch.Tensor:
    """Replaces NaN by -infinity, which becomes the lowest code as in `rounding.quantize_linear`."""
    return torch.nan_to_num(x, nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def scale_of(value: Dequantized) -> Scale:
    """Returns the scale of a constant with one scale."""
    return Scale(float(value.scale.reshape(())), int(value.zero_point.reshape(())), value.format)


def check_shape(shape: Sequence[int]) -> None:
    """Refuses activations that are too large for any hardware.

    Raises:
        CannotImport: the shape is too large, is empty, or has no batch axis of size 1.
    """
    if not shape or shape[0] != 1:
        raise CannotImport(
            f"its shape {tuple(shape)} for one sample must have the batch, of size 1, as axis 0"
        )
    if len(shape) == 1:
        raise CannotImport(
            "it has no axis but the batch; at least one more is needed, which may have one element "
            "(shape [batch, 1])"
        )
    if min(shape) < 1 or max(shape) > MOST_EXTENT or math.prod(shape) > MOST_ELEMENTS:
        raise CannotImport(
            f"its shape is {tuple(shape)}; an axis must have 1 to {MOST_EXTENT} elements, and all "
            f"axes together at most {MOST_ELEMENTS}"
        )

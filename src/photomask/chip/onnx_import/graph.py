"""The float graph in the making: nodes, the scales that the file gives them, constants."""

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
"""Of one activation of one sample."""
MOST_COPIES, SPARE_ELEMENTS = 8, 1 << 22
"""Times that a file's constants may be computed anew, and elements beyond that."""
MOST_EXTENT = 1 << 16
"""Along one axis of an activation."""


@dataclass(frozen=True)
class Rescale(Copy):
    """The same values on another scale: a QuantizeLinear right behind a DequantizeLinear."""

    takes_clamp: ClassVar[bool] = True


@dataclass
class GraphBuilder:
    """Collects what becomes a `FloatGraph` whose nodes have the file's scales.

    Attributes:
        file: name of the file, for sources.
        readers: of every tensor of the file; an output of the graph counts as two.
        quantizing: tensors that a QuantizeLinear reads.
        input_formats: of inputs that are codes.
        weights: as the file has them, by the node that multiplies by them.
        biased: nodes with weights that have a bias.
        budget: elements that may still be made of the file's constants.
    """

    file: str
    readers: Counter[str]
    quantizing: set[str]
    nodes: dict[str, Node] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    """By the node that owns the scale."""
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
        """Adds a node.

        Args:
            tensor: the file's name of what it computes.
            source: the file's node.
            operation: of the float graph.
            inputs: nodes.
            constants: real values by role, float64.
            shape: of one sample; computed if None.

        Raises:
            CannotImport: the operation cannot run on such shapes.
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
        """Counts what is made of the file's constants before it takes memory and time.

        Raises:
            CannotImport: far more than the file holds.
        """
        self.budget -= elements
        if self.budget < 0:
            raise CannotImport(
                f"it makes {elements} elements more of the file's constants, which is far more "
                "than the file holds: compute constants before the export"
            )

    def _unique(self, tensor: str) -> str:
        """Returns a name that any module, file system or language can hold."""
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
        """Returns the shape of one sample, the batch axis (1) included."""
        return self.nodes[value.node].shape

    def scale(self, node: str) -> Scale | None:
        """Returns the scale of a node's values; None while no QuantizeLinear has given it one."""
        return self.scales.get(self._owners[node])

    def known_scale(self, node: str) -> Scale:
        """Returns what the codes of a quantized value mean.

        Raises:
            CannotImport: nothing has quantized it.
        """
        scale = self.scale(node)
        if scale is None:
            raise CannotImport(f"its input {node!r} is not quantized")
        return scale

    def set_scale(self, node: str, scale: Scale) -> None:
        """Gives a node, and what its values are moved from, the scale of a QuantizeLinear."""
        owner = self._owners[node]
        found = self.nodes[owner]
        if isinstance(found.operation, Rescale) and self.scale(found.inputs[0]) == scale:
            # Nothing to rescale: what is left is the clamp.
            clamp = found.clamp or Clamp(-math.inf, math.inf)
            self.nodes[owner] = replace(found, operation=clamp, clamp=None)
            for name, old in self._owners.items():
                if old == owner:
                    self._owners[name] = self._owners[found.inputs[0]]
            return
        self.scales[owner] = scale

    def is_only_read_once(self, tensor: str) -> bool:
        """Tells whether a tensor of the file has one reader, into which it may be merged."""
        return self.readers[tensor] == 1

    def is_quantized_next(self, tensor: str) -> bool:
        """Tells whether a QuantizeLinear is all that reads a tensor of the file."""
        return self.readers[tensor] == 1 and tensor in self.quantizing

    def replace(self, node: str, tensor: str, **changes: Any) -> Real:
        """Changes a node that nothing reads yet; it now computes another tensor of the file."""
        name = self._unique(tensor)
        self.nodes[name] = replace(self.nodes.pop(node), name=name, **changes)
        del self._owners[node]
        self._owners[name] = name
        if node in self.weights:
            self.weights[name] = self.weights.pop(node)
        return Real(name)

    def quantized(self, value: Value, tensor: str) -> str:
        """Returns the node of a quantized operand.

        Raises:
            CannotImport: it is a constant, or no QuantizeLinear has quantized it.
        """
        if not isinstance(value, Real):
            raise CannotImport(f"{tensor!r} must be quantized activations, not a constant")
        if not value.exact:
            raise CannotImport(
                f"it reads {tensor!r} before a QuantizeLinear and DequantizeLinear have "
                "quantized it"
            )
        return value.node

    def operand(self, value: Value, tensor: str, rank: int) -> str:
        """Returns the node of a quantized operand, which may be a quantized constant.

        Args:
            value: the operand.
            tensor: its name.
            rank: of the result; a constant takes the axes it lacks, the batch's first.
        """
        if not isinstance(value, Dequantized):
            return self.quantized(value, tensor)
        if value.scale.size != 1:
            raise CannotImport(f"the constant {tensor!r} has more than one scale")
        if (tensor, rank) in self._operands:
            return self._operands[tensor, rank]
        codes = value.codes.reshape((1,) * max(0, rank - value.codes.ndim) + value.codes.shape)
        if codes.ndim > rank or codes.shape[:1] != (1,):
            raise CannotImport(f"the constant {tensor!r} of shape {codes.shape} has a batch axis")
        real = Dequantized(codes, value.scale.reshape(()), value.zero_point.reshape(()), None,
                           value.format)  # fmt: skip
        node = self.emit(tensor, tensor, Constant(), constants={"value": real.real()}).node
        self.scales[node] = scale_of(real)
        self._operands[tensor, rank] = node
        return node

    def finish(self, outputs: Sequence[str]) -> FloatGraph:
        """Returns the graph without what no output needs.

        All scales are known by now, so bounds and padding become what QuantizeLinear makes of them.
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
    """What QuantizeLinear makes of it: see `rounding.quantize_linear`."""
    return torch.nan_to_num(x, nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def scale_of(value: Dequantized) -> Scale:
    """Returns the meaning of codes that share one scale."""
    return Scale(float(value.scale.reshape(())), int(value.zero_point.reshape(())), value.format)


def check_shape(shape: Sequence[int]) -> None:
    """Refuses activations that no hardware holds.

    Raises:
        CannotImport: too large, empty, or without a batch axis of 1.
    """
    if not shape or shape[0] != 1:
        raise CannotImport(f"its shape {tuple(shape)} for one sample does not keep the batch first")
    if len(shape) == 1:
        raise CannotImport(
            "it has no axis but the batch: at least one more is needed, of one element if there is "
            "nothing else (shape [batch, 1])"
        )
    if min(shape) < 1 or max(shape) > MOST_EXTENT or math.prod(shape) > MOST_ELEMENTS:
        raise CannotImport(
            f"its shape is {tuple(shape)}; axes of 1 to {MOST_EXTENT} elements are read, "
            f"{MOST_ELEMENTS} elements in all"
        )

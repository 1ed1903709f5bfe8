"""Splits factors of any width into limbs, whose products ConvInteger and MatMulInteger add up.

Both operators take 8-bit factors and add in 32 bits. Wider factors are split into limbs:

    x = sum_i 2**(b*i) * (limb_i(x + offset) - limb_i(offset)),

The products of limbs are exact, and int64 additions combine them. All limbs are uint8, for two
reasons. Products of int8 and uint8 saturate in ONNX Runtime on processors without dot-product
instructions, and products of int8 and int8 are slow.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from photomask.chip.formats import Interval
from photomask.chip.forms.onnx.context import IntegerGraph
from photomask.chip.forms.onnx.functions import add_limb, flip_sign, limb
from photomask.chip.program import Step

LARGEST_SUM = (1 << 31) - 1
"""The largest sum that ConvInteger and MatMulInteger can hold."""

OPERANDS = {"ConvInteger": ("x", "w"), "MatMulInteger": ("a", "b")}
"""The names that ONNX uses for the two factors."""


@dataclass(frozen=True)
class Limb:
    """Some bits of one factor of a product."""

    value: str
    """The name of the uint8 values."""
    zero_point: int
    """The limb of a number that adds nothing to a product."""
    first_bit: int
    magnitude: int
    """A bound of `|value - zero_point|`; for weights, a bound of its sum for one output."""


@dataclass(frozen=True)
class Split:
    """How the integers of an interval are split into limbs of `bits` bits."""

    bits: int
    count: int
    offset: int
    """A number whose sum with every integer of the interval is not negative."""

    @classmethod
    def of(cls, interval: Interval, bits: int) -> Self:
        """Returns the split with the fewest limbs.

        The offset is 0 or half the range if such a split has no more limbs than others.
        """
        if interval.low >= 0:
            return cls(bits, -(-interval.bits // bits), 0)
        count = -(-(interval.high - interval.low).bit_length() // bits)
        half = 1 << (bits * count - 1)
        fits = interval.within(Interval(-half, half - 1))
        return cls(bits, count, half if fits else -interval.low)

    def first_bits(self) -> range:
        """Returns the first bit of each limb."""
        return range(0, self.count * self.bits, self.bits)

    def limb(self, value: int, first_bit: int) -> int:
        """Returns one limb of an integer."""
        return (value + self.offset) >> first_bit & ((1 << self.bits) - 1)

    def magnitude(self, interval: Interval, zero: int, first_bit: int) -> int:
        """Returns a bound of `|limb(x) - limb(zero)|` for every `x` of `interval`."""
        largest = (1 << self.bits) - 1
        low, high = ((end + self.offset) >> first_bit for end in (interval.low, interval.high))
        if high > largest:
            low, high = 0, largest
        centre = self.limb(zero, first_bit)
        return max(abs(low - centre), abs(high - centre))


def split_weights(graph: IntegerGraph, step: Step, weight: np.ndarray, axis: int) -> list[Limb]:
    """Adds constant weights as limbs of 8 bits.

    Args:
        graph: the graph that gets the tensors.
        step: the step that has the weights.
        weight: int64, in the layout of the ONNX operator.
        axis: the axis of the outputs.
    """
    split = Split.of(Interval.hull(int(weight.min()), int(weight.max()), 0), 8)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    limbs = []
    for first_bit in split.first_bits():
        values, zero_point = (weight + split.offset) >> first_bit & 255, split.limb(0, first_bit)
        total = int(np.abs(values - zero_point).sum(axis=others).max())
        name, note = step.tensors["weight"], f"weight + {split.offset}"
        if split.count > 1:
            name, note = f"{name}.bits_from_{first_bit}", f"8 bits of {note}, from {first_bit} on"
        value = graph.tensor(name, values, graph.onnx.TensorProto.UINT8, note)
        limbs.append(Limb(value, zero_point, first_bit, total))
    return limbs


def split_activation(
    graph: IntegerGraph, step: Step, edge: str, zero: int, others: int
) -> list[Limb]:
    """Adds an activation as limbs that are so narrow that 32 bits hold the sums.

    Args:
        graph: the graph that gets the nodes.
        step: the step that reads the activation.
        edge: the activation.
        zero: the code that adds nothing to a product: the zero point or the padding.
        others: a bound of the sum of the factors that one activation is multiplied by.
    """
    interval = Interval.hull(graph.program.edges[edge].interval, zero, 0)
    for bits in (8, 4, 2, 1):
        split = Split.of(interval, bits)
        magnitudes = [split.magnitude(interval, zero, first) for first in split.first_bits()]
        if max(magnitudes) * others <= LARGEST_SUM:
            break
    return [
        Limb(_limb_value(graph, step, edge, split, first), split.limb(zero, first), first, size)
        for first, size in zip(split.first_bits(), magnitudes, strict=True)
    ]


def _limb_value(graph: IntegerGraph, step: Step, edge: str, split: Split, first_bit: int) -> str:
    """Returns the uint8 values of one limb."""
    kinds = graph.onnx.TensorProto
    if split.count == 1 and graph.program.edges[edge].format.bits <= 8:
        if split.offset == 0:
            return graph.operand(edge, kinds.UINT8, step)
        if split.offset == 128 and graph.edge_type(edge) == kinds.INT8:
            return graph.call(flip_sign(), [edge], step, "input_plus_128")
    return graph.call(
        limb(),
        [edge],
        step,
        f"input_bits_from_{first_bit}",
        offset=split.offset,
        first_bit=first_bit,
        mask=(1 << split.bits) - 1,
    )


def add_up(
    graph: IntegerGraph,
    step: Step,
    operator: str,
    factors: tuple[list[Limb], list[Limb]],
    bias: np.ndarray,
    **attributes: Any,
) -> None:
    """Adds nodes that sum the products of all pairs of limbs and `bias`.

    Args:
        graph: the graph that gets the nodes.
        step: the step that the nodes compute.
        operator: ConvInteger or MatMulInteger.
        factors: the limbs of the first and the second input.
        bias: int64, broadcasts against the result.
        attributes: the attributes of the operator.
    """
    kinds = graph.onnx.TensorProto
    pairs = [(a, b) for a in factors[0] for b in factors[1]]
    interval = graph.program.edges[step.output].interval
    narrow = Interval.hull(interval, int(bias.min()), int(bias.max()))
    if len(pairs) == 1 and graph.type_of(narrow) == kinds.INT32:
        total = _product(graph, step, operator, *pairs[0], **attributes)
        constant = graph.tensor(_bias_name(step), bias, kinds.INT32)
        graph.finish(step, kinds.INT32, "Add", [total, constant])
        return
    total = graph.tensor(_bias_name(step), bias, kinds.INT64)
    for position, (a, b) in enumerate(pairs):
        inputs = [total, _product(graph, step, operator, a, b, **attributes)]
        weight = 1 << (a.first_bit + b.first_bit)
        if position + 1 < len(pairs):
            total = graph.call(add_limb(), inputs, step, "sum", weight=weight)
        else:
            graph.finish(step, kinds.INT64, add_limb(), inputs, weight=weight)


def _bias_name(step: Step) -> str:
    return step.tensors.get("bias", f"{step.name}/bias")


def _product(
    graph: IntegerGraph, step: Step, operator: str, a: Limb, b: Limb, **attributes: Any
) -> str:
    kind = graph.onnx.TensorProto.UINT8
    zero_points = [
        graph.scalar(part.zero_point, kind, step, f"{label}_zero_point")
        for part, label in zip((a, b), OPERANDS[operator], strict=True)
    ]
    inputs = [a.value, b.value, *zero_points]
    return graph.node(operator, inputs, step, "products", **attributes)

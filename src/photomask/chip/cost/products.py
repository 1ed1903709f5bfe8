"""What a convolution, a linear layer or a matrix product asks of an array of multipliers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.operators import Convolution, Linear, Matmul
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step
from photomask.errors import TargetError

LARGEST_AXIS = 1 << 20
MOST_PRODUCTS = 1 << 48
"""Of one step; beyond, the model's 64-bit counts would not be safe."""


@dataclass(frozen=True)
class SpatialAxis:
    """One spatial axis: output position `p` and tap `k` read `p*stride + k*dilation - padding`."""

    input: int
    output: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    """Elements before the input."""

    def touched(self, outputs: range, taps: range) -> int:
        """Returns how many different elements of the input some outputs read by some taps.

        Padding is not among them: it is a constant that the hardware inserts.
        """
        positions = (
            np.arange(outputs.start, outputs.stop)[:, None] * self.stride
            + np.arange(taps.start, taps.stop)[None, :] * self.dilation
            - self.padding
        )
        inside = positions[(positions >= 0) & (positions < self.input)]
        return inside.size if len(taps) == 1 else len(np.unique(inside))


@dataclass(frozen=True)
class Product:
    """`out[g,o,p] = sum_{i,k} w[g,o,i,k] * x[g,i,p,k]`: as many matrix products as groups.

    A convolution over one axis, a linear layer and a product of two activations have one row of
    output positions. The weights of the last are its second input. Where a reshape has put several
    maps of one sample along the batch axis, each is a group, with the weights read again.
    """

    groups: int
    channels_out: int
    """Of one group, as is `channels_in`."""
    channels_in: int
    rows: SpatialAxis
    columns: SpatialAxis
    weight: Packing
    activation: Packing

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.rows.kernel * self.columns.kernel

    @property
    def positions(self) -> int:
        """Output positions of one sample."""
        return self.rows.output * self.columns.output

    @property
    def multiply_accumulates(self) -> int:
        """Of one sample; products with padding are computed too."""
        reduction = self.channels_in * self.taps
        return self.groups * self.channels_out * reduction * self.positions


def packed_bytes(packing: Packing, elements: Any) -> Any:
    """Returns the bytes of the memory words that hold `elements`: an int, or an array of them."""
    return -(-packing.words(elements) * packing.word_bits // 8)


def product_of(program: IntegerProgram, step: Step, accelerator: Accelerator) -> Product | None:
    """Returns what a step asks of the array; None if it multiplies no matrices.

    Raises:
        TargetError: an operand or the accumulator is wider than the accelerator's, or the step is
            larger than the model counts.
    """
    operator, target = step.operator, program.target
    if not isinstance(operator, Convolution | Linear | Matmul):
        return None
    edges = [program.edges[name] for name in step.inputs]
    shape, output = edges[0].shape, program.edges[step.output]
    activation = Packing.of(edges[0].format, target)
    if isinstance(operator, Matmul):
        *batch, rows, channels_out = output.shape
        weight = Packing.of(edges[1].format, target)
        sizes = (math.prod(batch), channels_out, operator.terms)
        axes = (SpatialAxis(1, 1), SpatialAxis(rows, rows))
    elif isinstance(operator, Linear):
        weight = Packing.of(program.formats[step.tensors["weight"]], target)
        rows = math.prod(shape[:-1])
        sizes = (1, output.shape[-1], shape[-1])
        axes = (SpatialAxis(1, 1), SpatialAxis(rows, rows))
    else:
        weight = Packing.of(program.formats[step.tensors["weight"]], target)
        kernel = program.tensors[step.tensors["weight"]].shape[2:]
        sizes = (
            shape[0] * operator.groups,
            output.shape[1] // operator.groups,
            shape[1] // operator.groups,
        )
        axes = _spatial_axes(operator, shape[2:], output.shape[2:], kernel)
    _check_width(step, "activation_bits", "activations", edges[0].format.bits, accelerator)
    _check_width(step, "weight_bits", "weights", weight.format.bits, accelerator)
    _check_width(step, "accumulator_bits", "accumulators", output.interval.bits, accelerator)
    product = Product(*sizes, *axes, weight, activation)
    longest = max(product.rows.output, product.columns.output)
    if longest > LARGEST_AXIS or product.multiply_accumulates > MOST_PRODUCTS:
        raise TargetError(
            f"step {step.name!r} ({step.source}) has {product.multiply_accumulates:,} "
            f"multiply-accumulates and {longest:,} output positions along an axis; the model "
            f"counts up to {MOST_PRODUCTS:,} and {LARGEST_AXIS:,}"
        )
    return product


def _spatial_axes(
    operator: Convolution,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    kernel: tuple[int, ...],
) -> tuple[SpatialAxis, SpatialAxis]:
    """Returns rows and columns of a convolution."""
    before = tuple(first for first, _ in operator.padding)
    sizes = (inputs, outputs, kernel, operator.stride, operator.dilation, before)
    axes = [SpatialAxis(*numbers) for numbers in zip(*sizes, strict=True)]
    return (axes[0], axes[1]) if len(axes) == 2 else (SpatialAxis(1, 1), axes[0])


def _check_width(step: Step, field: str, what: str, bits: int, accelerator: Accelerator) -> None:
    if bits > (available := getattr(accelerator, field)):
        raise TargetError(
            f"step {step.name!r} ({step.source}) has {what} of {bits} bits; accelerator "
            f"{accelerator.name!r} has {field} {available}. Convert with fewer bits, or choose "
            "another accelerator"
        )

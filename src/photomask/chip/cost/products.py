"""The work that convolutions, linear layers and matrix products ask of an array of multipliers."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.operators import MatrixProduct
from photomask.chip.operators.weights import effective_weight
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step
from photomask.chip.sparsity import NofM
from photomask.errors import TargetError

LARGEST_AXIS = 1 << 20
MOST_PRODUCTS = 1 << 48
"""The most products of one step; with more, the model's 64-bit counts could overflow."""


@dataclass(frozen=True)
class Product(MatrixProduct):
    """A product of matrices whose operands lie in memory words.

    If the product has a pattern N:M, its weights are compressed: each output holds N weights for
    each M inputs at one position of the kernel, and the number of the group's pattern.
    """

    weight: Packing
    activation: Packing
    pattern: NofM | None = None

    def held(self, inputs: Any) -> Any:
        """Returns how many weights an output holds for `inputs` channels at one kernel position."""
        if self.pattern is None:
            return inputs
        return -(-inputs // self.pattern.group) * self.pattern.kept

    def weight_bytes(self, held: Any) -> Any:
        """Returns the bytes of the words with `held` weights, and of those with their patterns."""
        size = packed_bytes(self.weight, held)
        if self.pattern is None:
            return size
        bits = held // self.pattern.kept * self.pattern.index_bits
        return size + -(-bits // self.weight.word_bits) * self.weight.word_bits // 8


def packed_bytes(packing: Packing, elements: Any) -> Any:
    """Returns the bytes of the memory words that hold `elements`, an int or an array of ints."""
    return -(-packing.words(elements) * packing.word_bits // 8)


def constant_weight(program: IntegerProgram, step: Step, product: Product) -> np.ndarray | None:
    """Returns the weights of a product, int64 [groups, outputs, inputs, kernel positions].

    Their zero points are subtracted, so that a zero adds nothing to a sum. The groups are those of
    a convolution. A product of two activations has no constant weights and gives None.
    """
    if "weight" not in step.tensors:
        return None
    weight = effective_weight(program.parameters(step))
    return weight.reshape(-1, product.channels_out, product.channels_in, product.taps)


def compressed(product: Product, weight: np.ndarray, accelerator: Accelerator) -> Product | None:
    """Returns a product with compressed weights, or None if the array cannot take it so.

    Args:
        product: the dense product.
        weight: its constant weights, as `constant_weight` returns them.
        accelerator: has the pattern that all weights must keep.
    """
    pattern = accelerator.sparse
    if pattern is None or not pattern.holds(weight.reshape(-1, *weight.shape[2:])):
        return None
    return replace(product, pattern=pattern)


def product_of(program: IntegerProgram, step: Step, accelerator: Accelerator) -> Product | None:
    """Returns the work of a step on the array, or None if it multiplies no matrices.

    Raises:
        TargetError: an operand or the accumulator is wider than the accelerator's, or the step is
            too large for the model.
    """
    work = program.work(step)
    if not isinstance(work, MatrixProduct):
        return None
    edges, output = [program.edges[name] for name in step.inputs], program.edges[step.output]
    activation = Packing.of(edges[0].format, program.target)
    tensor = step.tensors.get("weight")
    weights = edges[1].format if tensor is None else program.formats[tensor]
    weight = Packing.of(weights, program.target)
    _check_width(step, "activation_bits", "activations", edges[0].format.bits, accelerator)
    _check_width(step, "weight_bits", "weights", weight.format.bits, accelerator)
    _check_width(step, "accumulator_bits", "accumulators", output.interval.bits, accelerator)
    product = Product(**vars(work), weight=weight, activation=activation)
    longest = max(product.rows.output, product.columns.output)
    if longest > LARGEST_AXIS or product.multiply_accumulates > MOST_PRODUCTS:
        raise TargetError(
            f"step {step.name!r} ({step.source}) has {product.multiply_accumulates:,} "
            f"multiply-accumulates and {longest:,} output positions along an axis; the cost model "
            f"can count up to {MOST_PRODUCTS:,} and {LARGEST_AXIS:,}"
        )
    return product


def _check_width(step: Step, field: str, what: str, bits: int, accelerator: Accelerator) -> None:
    if bits > (available := getattr(accelerator, field)):
        raise TargetError(
            f"step {step.name!r} ({step.source}) has {what} of {bits} bits, but accelerator "
            f"{accelerator.name!r} has {field} {available}. Convert with fewer bits, or choose "
            "another accelerator"
        )

"""The work that convolutions, linear layers and matrix products ask of an array of multipliers."""

from dataclasses import dataclass
from typing import Any

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.operators import MatrixProduct
from photomask.chip.packing import Packing
from photomask.chip.program import IntegerProgram, Step
from photomask.errors import TargetError

LARGEST_AXIS = 1 << 20
MOST_PRODUCTS = 1 << 48
"""The most products of one step; with more, the model's 64-bit counts could overflow."""


@dataclass(frozen=True)
class Product(MatrixProduct):
    """A product of matrices whose operands lie in memory words."""

    weight: Packing
    activation: Packing


def packed_bytes(packing: Packing, elements: Any) -> Any:
    """Returns the bytes of the memory words that hold `elements`, an int or an array of ints."""
    return -(-packing.words(elements) * packing.word_bits // 8)


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

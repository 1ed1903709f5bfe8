"""What the writers of the reference design get, and the table of them."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.forms.rtl.descriptors import Descriptor, Operation
from photomask.chip.forms.rtl.images import ImageBuilder
from photomask.chip.forms.rtl.memory_map import Place
from photomask.chip.forms.writers import Writers
from photomask.chip.operators import Parameters
from photomask.chip.program import Edge, IntegerProgram, Step
from photomask.errors import FormError


@dataclass(frozen=True)
class Context:
    """One step, the design, and where everything lies.

    Attributes:
        program: the whole program.
        accelerator: rows, columns and widths.
        lanes: channels in a word.
        places: where every edge lies.
        copies: where the copies of a step's inputs lie, by step and number of the input.
        images: takes the step's constants.
        step: the step.
    """

    program: IntegerProgram
    accelerator: Accelerator
    lanes: int
    places: dict[str, Place]
    copies: dict[tuple[str, int], Place]
    images: ImageBuilder
    step: Step

    @property
    def inputs(self) -> list[Edge]:
        """The edges that the step reads."""
        return [self.program.edges[name] for name in self.step.inputs]

    @property
    def input_places(self) -> list[Place]:
        """Where they lie."""
        return [self.places[name] for name in self.step.inputs]

    @property
    def output(self) -> Edge:
        """The edge that the step computes."""
        return self.program.edges[self.step.output]

    @property
    def output_place(self) -> Place:
        """Where it goes."""
        return self.places[self.step.output]

    def copy_of(self, number: int) -> Place | None:
        """Where the step has a copy of an input; None if it reads the input where it lies."""
        return self.copies.get((self.step.name, number))

    @property
    def parameters(self) -> Parameters:
        """The step's constant tensors by role."""
        return self.program.parameters(self.step)

    @property
    def lowest(self) -> int:
        """The lowest number that a lane of the vector unit holds."""
        return -(1 << (self.accelerator.accumulator_bits - 1))

    @property
    def highest(self) -> int:
        """The highest number that a lane of the vector unit holds."""
        return (1 << (self.accelerator.accumulator_bits - 1)) - 1

    def descriptor(
        self, operation: Operation, source: Place, target: Place, **fields: int
    ) -> Descriptor:
        """Returns a descriptor that reads `source` and writes `target`.

        It saturates to what a lane holds, unless the fields say otherwise.
        """
        fields = {"low": self.lowest, "high": self.highest} | fields
        return Descriptor(
            operation,
            input_in_accumulators=int(source.memory == "accumulators"),
            output_in_accumulators=int(target.memory == "accumulators"),
            input_signed=int(source.signed),
            **fields,  # type: ignore[arg-type]
        )

    def row_major(self, number: int) -> np.ndarray:
        """Returns the element numbers of an input in its own shape."""
        edge = self.inputs[number]
        return np.arange(np.prod(edge.shape, dtype=np.int64)).reshape(edge.shape)

    def saturation(self, low: int, high: int) -> dict[str, int]:
        """Returns the fields of a clamp; an end that no lane can hold becomes the nearest one."""
        return {"low": max(low, self.lowest), "high": min(high, self.highest)}

    def require_accumulators(self, low: int, high: int, what: str) -> None:
        """Refuses numbers that a lane of the vector unit cannot hold.

        Raises:
            FormError: says what they are.
        """
        if low < self.lowest or high > self.highest:
            raise FormError(
                f"{what} lies between {low} and {high}; a lane has "
                f"{self.accelerator.accumulator_bits} bits"
            )


RTL = Writers[[Context], list[Descriptor]]("the reference design")
"""Which function turns a step with which operator into descriptors."""

"""The context that every writer of the reference design gets, and the table of the writers."""

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
    """One step, the design, and the places of all data in memory.

    Attributes:
        program: the whole program.
        accelerator: the rows, columns and widths of the design.
        lanes: the number of channels in a memory word.
        places: the place of every edge.
        copies: the places of the copies of a step's inputs, by step and number of the input.
        images: collects the constants of the steps.
        step: the step to write.
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
        """The places of the edges that the step reads."""
        return [self.places[name] for name in self.step.inputs]

    @property
    def output(self) -> Edge:
        """The edge that the step computes."""
        return self.program.edges[self.step.output]

    @property
    def output_place(self) -> Place:
        """The place that the step writes its output to."""
        return self.places[self.step.output]

    def copy_of(self, number: int) -> Place | None:
        """Returns the place of the step's copy of an input, or None if it has no copy."""
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

        It saturates to the range of a lane, unless the fields say otherwise.
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
        """Returns the row-major numbers of an input's elements, in the shape of the input."""
        edge = self.inputs[number]
        return np.arange(np.prod(edge.shape, dtype=np.int64)).reshape(edge.shape)

    def saturation(self, low: int, high: int) -> dict[str, int]:
        """Returns the fields of a clamp.

        An end that no lane can hold becomes the nearest number that a lane can hold.
        """
        return {"low": max(low, self.lowest), "high": min(high, self.highest)}

    def require_accumulators(self, low: int, high: int, what: str) -> None:
        """Raises an error for numbers that a lane of the vector unit cannot hold.

        Args:
            low: the lowest number.
            high: the highest number.
            what: what the numbers are, for the message.

        Raises:
            FormError: a number does not fit into a lane.
        """
        if low < self.lowest or high > self.highest:
            raise FormError(
                f"{what} lies between {low} and {high}, but a lane has only "
                f"{self.accelerator.accumulator_bits} bits; choose an accelerator with wider "
                "accumulators"
            )


RTL = Writers[[Context], list[Descriptor]]("the reference design")
"""The table of the functions that turn a step into descriptors, by operator."""

"""The links of a program: which steps make and read each edge, and which steps can be fused."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from photomask.chip.operators import Requantize
from photomask.chip.program.document import Step


class Links:
    """The graph of a program's steps, which `IntegerProgram.links` computes once.

    Attributes:
        steps: every step by its name, in the order of computation.
        positions: the position of each step in this order, from 0, by the step's name.
        makers: the step that computes each edge; inputs have none.
        readers: the steps that read each edge, in their order. A step that reads an edge twice is
            listed twice.
        last_reads: the position of the last step that reads each edge, if any step reads it.
        growing: the edges that depend on an input and therefore have rows for every sample.
    """

    def __init__(self, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]):
        """Follows the edges from step to step.

        Args:
            steps: the steps in the order of computation.
            inputs: the names of the input edges.
            outputs: the names of the output edges.
        """
        self._outputs = frozenset(outputs)
        readers: dict[str, list[Step]] = {name: [] for name in inputs}
        growing = set(inputs)
        nodes: dict[str, list[Step]] = {}
        for step in steps:
            for name in step.inputs:
                readers.setdefault(name, []).append(step)
            readers.setdefault(step.output, [])
            if growing.intersection(step.inputs):
                growing.add(step.output)
            nodes.setdefault(step.node, []).append(step)
        self.steps: Mapping[str, Step] = MappingProxyType({step.name: step for step in steps})
        self.positions: Mapping[str, int] = MappingProxyType(
            {step.name: position for position, step in enumerate(steps)}
        )
        self.makers: Mapping[str, Step] = MappingProxyType({step.output: step for step in steps})
        self.readers: Mapping[str, tuple[Step, ...]] = MappingProxyType(
            {name: tuple(found) for name, found in readers.items()}
        )
        self.last_reads: Mapping[str, int] = MappingProxyType(
            {name: position for position, step in enumerate(steps) for name in step.inputs}
        )
        self.growing = frozenset(growing)
        self._nodes = {name: tuple(found) for name, found in nodes.items()}

    def of_node(self, node: str) -> tuple[Step, ...]:
        """Returns the steps that compute a node of the float model; none if it needs none."""
        return self._nodes.get(node, ())

    def only_reader(self, edge: str) -> Step | None:
        """Returns the only step that reads an edge.

        Returns None if other steps read it too, or if it is an output of the program.
        """
        readers = self.readers[edge]
        return readers[0] if len(readers) == 1 and edge not in self._outputs else None

    def rescaling(self, step: Step) -> Step | None:
        """Returns the requantization that is the only reader of a step's result, or None."""
        reader = self.only_reader(step.output)
        return reader if reader and isinstance(reader.operator, Requantize) else None

    def epilogues(self, step: Step) -> tuple[Step, ...]:
        """Returns the steps that can be applied to each result of a step as it leaves.

        Each of them is an epilogue (`Operator.is_epilogue`) and the only reader of the result
        before it. That result therefore never needs a place in memory.
        """
        found: list[Step] = []
        reader = self.only_reader(step.output)
        while reader is not None and reader.operator.is_epilogue():
            found.append(reader)
            reader = self.only_reader(reader.output)
        return tuple(found)

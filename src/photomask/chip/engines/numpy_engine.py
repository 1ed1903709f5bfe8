"""The oracle: plain int64 NumPy, one step after the other, no optimisation."""

from collections.abc import Iterator, Mapping

import numpy as np

from photomask.chip.program import IntegerProgram
from photomask.errors import DataError


class NumpyEngine:
    """Runs a program in int64; what it computes is by definition right."""

    def __init__(self, program: IntegerProgram):
        self.program = program

    def edges(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yields every edge and its integers in the order of computation, inputs first.

        Args:
            inputs: int64 codes by input name, batch first.

        Raises:
            DataError: an input is missing, not integer, out of its format or of another shape.
        """
        values = dict(inputs)
        for name in self.program.inputs:
            check_codes(self.program, name, values.get(name))
            yield name, values[name]
        for step in self.program.steps:
            value = step.operator.run_numpy(
                [values[name] for name in step.inputs], self.program.parameters(step)
            )
            values[step.output] = value
            yield step.output, value

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the output edges."""
        values = dict(self.edges(inputs))
        return {name: values[name] for name in self.program.outputs}


def check_codes(program: IntegerProgram, name: str, codes: np.ndarray | None) -> None:
    """Refuses codes that the input edge cannot hold.

    Raises:
        DataError: says what was found and what was expected.
    """
    edge = program.edges[name]
    if codes is None:
        raise DataError(f"the program needs the input {name!r}")
    if codes.dtype != np.int64 or codes.shape[1:] != edge.shape[1:] or not codes.size:
        raise DataError(
            f"input {name!r} must be int64 of shape [batch, {', '.join(map(str, edge.shape[1:]))}]"
            f", got {codes.dtype} of shape {list(codes.shape)}"
        )
    if codes.min() < edge.low or codes.max() > edge.high:
        raise DataError(
            f"input {name!r} holds {codes.min()} to {codes.max()}, outside {edge.low} to "
            f"{edge.high} ({edge.format}); quantize real inputs with program.quantize_input"
        )

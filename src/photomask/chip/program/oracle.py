"""The oracle: plain int64 NumPy, one step after the other, without optimizations."""

from collections.abc import Iterator, Mapping

import numpy as np

from photomask.chip.program.codes import Inputs, arrays_by_name
from photomask.chip.program.program import IntegerProgram
from photomask.errors import DataError


class NumpyEngine:
    """Runs a program in int64; its results are right by definition."""

    def __init__(self, program: IntegerProgram):
        self.program = program

    def edges(self, inputs: Inputs) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the name and the integers of every edge in the order of computation, inputs first.

        Args:
            inputs: int64 codes by input name, batch axis first; or codes alone, for a program with
                one input.

        Raises:
            DataError: an input is missing, is not int64, holds a value outside its format or has
                another shape.
        """
        values = arrays_by_name(self.program, inputs)
        check_inputs(self.program, values)
        for name in self.program.inputs:
            yield name, values[name]
        for step in self.program.steps:
            value = step.operator.run_numpy(
                [values[name] for name in step.inputs], self.program.parameters(step)
            )
            values[step.output] = value
            yield step.output, value

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Returns the output edges by name, for the same inputs as `edges`."""
        values = dict(self.edges(inputs))
        return {name: values[name] for name in self.program.outputs}


def check_inputs(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> None:
    """Raises an error for codes that the input edges cannot hold.

    Raises:
        DataError: says what was found and what was expected.
    """
    if set(inputs) != set(program.inputs):
        raise DataError(f"the program takes the inputs {list(program.inputs)}, got {list(inputs)}")
    for name, codes in inputs.items():
        _check_codes(program, name, codes)
    if len({len(codes) for codes in inputs.values()}) > 1:
        raise DataError(
            "the inputs have batches of different sizes; give each input the same number of samples"
        )


def _check_codes(program: IntegerProgram, name: str, codes: np.ndarray) -> None:
    edge = program.edges[name]
    fits = codes.ndim == len(edge.shape) and codes.shape[1:] == edge.shape[1:]
    if codes.dtype != np.int64 or not fits or not codes.size:
        raise DataError(
            f"input {name!r} must be int64 of shape [batch, {', '.join(map(str, edge.shape[1:]))}]"
            f", got {codes.dtype} of shape {list(codes.shape)}"
        )
    if codes.min() < edge.low or codes.max() > edge.high:
        raise DataError(
            f"input {name!r} holds {codes.min()} to {codes.max()}, outside {edge.low} to "
            f"{edge.high} ({edge.format}); quantize real inputs with program.quantize_input"
        )

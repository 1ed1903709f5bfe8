"""Golden vectors: the integers of every edge for given inputs, as the oracle computes them."""

from collections.abc import Iterator, Sequence

import numpy as np

from photomask.chip.forms.form import Sample
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs, arrays_by_name
from photomask.chip.program.oracle import NumpyEngine, check_inputs
from photomask.errors import DataError


def single_samples(program: IntegerProgram, inputs: Inputs, samples: int | None) -> list[Sample]:
    """Splits a batch of inputs into samples, each with a batch axis of 1.

    Args:
        program: the program that the inputs belong to.
        inputs: int64 codes.
        samples: how many to take from the front; None takes all.

    Raises:
        DataError: an input is missing, is not int64, holds a value outside its format or has
            another shape; or there are fewer samples than asked for.
    """
    arrays = arrays_by_name(program, inputs)
    check_inputs(program, arrays)
    available = len(arrays[program.inputs[0]])
    count = available if samples is None else samples
    if not 1 <= count <= available:
        raise DataError(
            f"asked for {count} samples of a batch of {available}; choose from 1 to {available}"
        )
    return [
        {name: array[index : index + 1] for name, array in arrays.items()} for index in range(count)
    ]


def random_inputs(program: IntegerProgram, samples: int) -> dict[str, np.ndarray]:
    """Returns uniformly distributed codes by input name, each of shape [samples, …].

    The codes lie in the interval of each input. They are seeded, so the same program gives the same
    codes.
    """
    random = np.random.default_rng(0)
    edges = [program.edges[name] for name in program.inputs]
    return {
        edge.name: random.integers(edge.low, edge.high, (samples, *edge.shape[1:]), endpoint=True)
        for edge in edges
    }


def golden_edges(
    program: IntegerProgram, samples: Sequence[Sample]
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yields the sample's index, the edge's name and its integers, in the order of computation.

    All edges of a sample come before those of the next sample.
    """
    engine = NumpyEngine(program)
    for index, inputs in enumerate(samples):
        for edge, value in engine.edges(inputs):
            yield index, edge, value

"""Which elements of its inputs reach which elements of an operator's result, by changing them."""

from collections.abc import Iterator

import numpy as np
from tests.chip.operators.operator_cases import Case

Position = tuple[int, ...]


def influences(case: Case) -> set[tuple[int, Position, Position]]:
    """Changes one element after the other, to both ends of its interval and to its middle.

    Returns:
        Number of the input, position in it, and a position of the result that changed.
    """
    found: set[tuple[int, Position, Position]] = set()
    before = case.operator.run_numpy(case.inputs, case.parameters)
    for number, (x, interval) in enumerate(zip(case.inputs, case.intervals, strict=True)):
        middle = (interval.low + interval.high) // 2
        for position in np.ndindex(x.shape):
            for value in (interval.low, middle, interval.high):
                changed = [other.copy() for other in case.inputs]
                changed[number][position] = value
                after = case.operator.run_numpy(changed, case.parameters)
                for place in np.argwhere(after != before):
                    found.add((number, position, tuple(int(n) for n in place)))
    return found


def sources(case: Case) -> Iterator[tuple[int, Position, Position]]:
    """Follows every element of an operator that moves elements, by giving each its own number.

    Yields:
        Number of the input, position in it, and where the element is in the result.
    """
    starts = np.cumsum([0, *(x.size for x in case.inputs)]) + 1
    numbered = [
        start + np.arange(x.size).reshape(x.shape)
        for start, x in zip(starts[:-1], case.inputs, strict=True)
    ]
    result = case.operator.run_numpy(numbered, case.parameters)
    for place in np.ndindex(result.shape):
        for number, x in enumerate(numbered):
            for position in np.argwhere(x == result[place]):
                yield number, tuple(int(n) for n in position), place

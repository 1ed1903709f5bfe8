"""What Hypothesis draws from."""

from benchmarks.random_program import random_program
from hypothesis import strategies as st

from photomask.chip import IntegerProgram


def random_programs() -> st.SearchStrategy[IntegerProgram]:
    """Random valid integer programs."""
    return st.integers(0, (1 << 32) - 1).map(random_program)

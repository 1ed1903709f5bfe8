"""Weights with zeros of every kind, for the tests of the storages."""

import numpy as np
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat


@st.composite
def sparse_weights(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, IntFormat]:
    """Returns a weight, the integer that is zero in each output, and the weight's format."""
    format = IntFormat(bits=draw(st.integers(2, 8)), signed=draw(st.booleans()))
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 20)), *kernel)
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    weight = random.integers(format.low, format.high, shape, endpoint=True)
    zero = np.zeros(shape[0], dtype=np.int64)
    if draw(st.booleans()):
        zero = random.integers(format.low, format.high, shape[0], endpoint=True)
    density = draw(st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]))
    kept = random.random(shape) < density
    if draw(st.booleans()):  # whole blocks
        kept[:] = False
        kept[: shape[0] // 2, shape[1] // 2 :] = True
    return np.where(kept, weight, zero.reshape(-1, *(1,) * (len(shape) - 1))), zero, format

"""Suppresses a line that the solver's library writes to standard output."""

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KNOWN = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();"
"""A line that HiGHS writes whenever it repairs a solution whose rounding violates its tolerances.

No option suppresses it. It is a debugging trace in a release, and reports no error.
"""


@contextmanager
def without_known_lines() -> Iterator[None]:
    """Removes the line `KNOWN` from standard output inside a context, and nothing else.

    The line comes from compiled code, so standard output is redirected at the file descriptor.
    Other output, also that of other threads, appears when the context ends.
    """
    try:
        flush, saved = ctypes.CDLL(None).fflush, os.dup(1)
    except (OSError, TypeError):  # there is no standard output, or no C library to load
        yield
        return
    with tempfile.TemporaryFile() as caught:
        _flush(flush)
        os.dup2(caught.fileno(), 1)
        try:
            yield
        finally:
            _flush(flush)
            os.dup2(saved, 1)
            os.close(saved)
            caught.seek(0)
            rest = b"".join(line for line in caught if line.rstrip(b"\r\n") != KNOWN)
            with os.fdopen(os.dup(1), "wb") as output:
                output.write(rest)


def _flush(flush: Callable[[None], int]) -> None:
    """Flushes the output buffers of Python and of the C library."""
    if sys.stdout is not None:
        sys.stdout.flush()
    flush(None)

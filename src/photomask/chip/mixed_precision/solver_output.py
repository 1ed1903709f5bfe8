"""What the solver's library writes to the standard output on its own."""

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KNOWN = b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();"
"""HiGHS writes this line, unconditionally and past every option, whenever it repairs a solution
whose rounding violates its tolerances: a trace that was left in a release, and no error."""


@contextmanager
def without_known_lines() -> Iterator[None]:
    """Drops that one line, and writes everything else that appears meanwhile, as it was.

    The line comes from compiled code, so it is caught at the file descriptor. Output of other
    threads is not lost either; it appears when the block ends.
    """
    try:
        flush, saved = ctypes.CDLL(None).fflush, os.dup(1)
    except (OSError, TypeError):  # no standard output, or no C library to be asked for
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
    """Empties Python's buffer and that of the C library, which a pipe makes a long one."""
    if sys.stdout is not None:
        sys.stdout.flush()
    flush(None)

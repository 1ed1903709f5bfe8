"""Logs the stages of a pipeline and the duration of each, by `logging`.

Every module logs under its own name, such as `photomask.chip.calibration`. Nothing is shown unless
the program asks for it::

    logging.basicConfig(level=logging.INFO)

Messages of the level `INFO` are the stages with their durations. Messages of the level `DEBUG` are
the decisions inside the stages. Results are returned and never logged.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(module: str, name: str) -> Iterator[None]:
    """Logs the start of a stage and, at its end, how many seconds it took.

    Use it for a block by `with`, or for a whole function as its decorator. If a stage ends with an
    error, its end is not logged, because the error says more.

    Args:
        module: the `__name__` of the module of the stage.
        name: the name of the stage, such as "calibrate".
    """
    logger = logging.getLogger(module)
    logger.info("%s: started", name)
    started = time.perf_counter()
    yield
    logger.info("%s: done in %.2f s", name, time.perf_counter() - started)

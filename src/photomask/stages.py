"""What the library tells `logging`: the stages of a pipeline, and how long each took.

Every module logs under its own name, such as `photomask.chip.calibration`. Nothing is shown unless
a program asks for it::

    logging.basicConfig(level=logging.INFO)

`INFO` tells the stages with their durations, and `DEBUG` what was decided inside them. Results are
returned and never logged.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(module: str, name: str) -> Iterator[None]:
    """Logs that a stage begins, and after it how many seconds it took.

    It surrounds a block by `with`, or a whole function as its decorator. A stage that ends by an
    error logs no end: the error tells more.

    Args:
        module: `__name__` of the module that the stage lies in.
        name: of the stage, such as "calibrate".
    """
    logger = logging.getLogger(module)
    logger.info("%s: started", name)
    started = time.perf_counter()
    yield
    logger.info("%s: done in %.2f s", name, time.perf_counter() - started)

"""Times that can be compared: everyone is called in turn, on a GPU that everyone finds busy.

At its power limit a GPU lowers its clock. Who is called after a pause, or after something light,
finds a higher one: so each is called untimed first, and nobody is the first of every round.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
ROUNDS = 5
MOST_CALLS = 25
"""Calls of one thing in a round."""
SETTLE = 40
"""Milliseconds of untimed calls before those of a round."""


class Deadline:
    """A moment after which nothing new is begun.

    Args:
        minutes: from now; None for never.
    """

    def __init__(self, minutes: float | None):
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return time.monotonic() > self._end


def time_together(
    calls: Mapping[Key, Callable[[], object]], milliseconds: float, device: torch.device
) -> dict[Key, list[float]]:
    """Measures calls that have run before, a few of each in every round.

    Args:
        calls: by any name.
        milliseconds: how long to repeat each, at most about; five times at least.
        device: that the calls compute on.

    Returns:
        Milliseconds of every timed call.
    """
    times = {key: _time(call, 1, device) for key, call in calls.items()}
    counts = {
        key: min(max(round(milliseconds / max(once, 1e-3) / ROUNDS), 1), MOST_CALLS)
        for key, (once,) in times.items()
    }
    names = list(calls)
    for number in range(ROUNDS):
        first = number * len(names) // ROUNDS
        for key in names[first:] + names[:first]:
            once = statistics.median(times[key])
            _time(calls[key], min(round(SETTLE / max(once, 1e-3)), MOST_CALLS), device)
            times[key] += _time(calls[key], counts[key], device)
    return {key: found[1:] for key, found in times.items()}


def _time(call: Callable[[], object], count: int, device: torch.device) -> list[float]:
    """Returns the milliseconds of each of `count` calls in a row."""
    if device.type != "cuda":
        times = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return times
    moments = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    torch.cuda.synchronize()
    moments[0].record()
    for moment in moments[1:]:
        call()
        moment.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in itertools.pairwise(moments)]

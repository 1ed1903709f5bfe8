"""How sure a difference between two accuracies is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from photomask.report import Verdict

NORMAL_95 = 1.959963984540054
"""The normal distribution holds 95 % within so many standard deviations."""


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of an accuracy, in percent.

    Args:
        right: right answers.
        total: answers, at least 1.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22 (score interval).
    """
    share, z2 = right / total, NORMAL_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half = NORMAL_95 * spread / (1 + z2 / total)
    return max(0.0, 100 * (centre - half)), min(100.0, 100 * (centre + half))


def mean_interval(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean over independent groups, from the interval of each.

    The variances add up: `half = sqrt(sum half_i**2) / n`.

    Args:
        intervals: symmetric around each group's estimate; at least one.
    """
    count = len(intervals)
    centre = sum(low + high for low, high in intervals) / (2 * count)
    half = math.sqrt(sum(((high - low) / 2) ** 2 for low, high in intervals)) / count
    return centre - half, centre + half


def interval_verdict(interval: tuple[float, float], limit: float) -> Verdict:
    """Judges a loss by the interval in which it lies.

    Returns:
        Passed where all of the interval is within the limit, failed where all of it is beyond.
    """
    low, high = interval
    if low > limit:
        return "failed"
    return "passed" if high <= limit else "not decided"


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns how likely two equally good models differ at least so much: McNemar's exact test.

    Args:
        only_first: questions that only the first model answers rightly.
        only_second: questions that only the second one does.

    Returns:
        The two-sided p-value of the binomial test; 1 where the models never differ.

    Source: McNemar 1947, Psychometrika 12.
    """
    differing = only_first + only_second
    fewer = min(only_first, only_second)
    tail = sum(math.comb(differing, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**differing)


def paired_loss_interval(only_first: int, only_second: int, total: int) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy lost from first to second model, in points.

    The normal interval of a difference of paired shares, with half a question added to each kind
    of difference, so that no difference found is not taken for certainty.

    Args:
        only_first: questions that only the first model answers rightly.
        only_second: questions that only the second one does.
        total: questions, at least 1.

    Source: Agresti and Min 2005, Statistics in Medicine 24.
    """
    first = only_first + 0.5
    second = only_second + 0.5
    count = total + 2
    loss = (first - second) / count
    half = NORMAL_95 * math.sqrt((first + second) / count - loss**2) / math.sqrt(count)
    return 100 * (loss - half), 100 * (loss + half)

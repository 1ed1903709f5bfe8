"""The pictures of a verification report."""

from collections.abc import Callable

from photomask.chip.verification.documents import Report


def figures_of(report: Report) -> dict[str, Callable[[], str]]:
    """Returns what draws each picture, by name."""
    return {}

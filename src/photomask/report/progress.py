"""How long work is shown: a wrapper around the list that it walks."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows how far work has come; the library itself prints nothing."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        """Yields the items, one by one, while it shows the label and how many are done."""
        ...


def without_progress(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Shows nothing."""
    return items

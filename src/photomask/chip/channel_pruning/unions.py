"""Keeps which channels must leave together, and which must stay, as disjoint sets of numbers."""

import numpy as np


class Unions:
    """Disjoint sets of channels, of which each is a number above 0; 0 stands for no channel.

    A set is *held* if its channels must stay, with the reason.
    """

    def __init__(self) -> None:
        self._parents = np.zeros(1, dtype=np.int64)
        self.reasons: dict[int, str] = {}
        """By representative of a set that is held, the first reason."""

    def new(self, count: int) -> np.ndarray:
        """Returns a number of new channels, each a set of its own."""
        numbers = np.arange(len(self._parents), len(self._parents) + count)
        self._parents = np.concatenate([self._parents, numbers])
        return numbers

    def roots(self, channels: np.ndarray) -> np.ndarray:
        """Returns the representative of each channel's set; 0 stays 0."""
        found = self._parents[channels]
        while True:
            above = self._parents[found]
            if np.array_equal(above, found):
                return found
            found = above

    def root(self, channel: int) -> int:
        """Returns the representative of one channel's set."""
        while self._parents[channel] != channel:
            self._parents[channel] = self._parents[self._parents[channel]]
            channel = int(self._parents[channel])
        return channel

    def join(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Joins the channels at equal places of two arrays; one that meets no channel is held.

        Args:
            first: channels.
            second: channels, an array of the same shape.
            reason: why a channel that meets none must stay.
        """
        count = len(self._parents)
        pairs = np.unique(first.astype(np.int64).reshape(-1) * count + second.reshape(-1))
        for one, other in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
            if one == other:
                continue
            if one and other:
                self._join_two(one, other)
            else:
                self.hold(np.array([one or other]), reason)

    def hold(self, channels: np.ndarray, reason: str) -> None:
        """Holds the sets of channels; a set keeps its first reason."""
        for channel in np.unique(channels).tolist():
            if channel:
                self.reasons.setdefault(self.root(channel), reason)

    def _join_two(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if one == other:
            return
        low, high = min(one, other), max(one, other)
        self._parents[high] = low
        reason = self.reasons.pop(high, None)
        if reason is not None:
            self.reasons.setdefault(low, reason)


def varies(channels: np.ndarray, axis: int) -> bool:
    """Tells whether an array of channels differs along an axis."""
    if channels.shape[axis] < 2 or channels.strides[axis] == 0:
        return False
    return bool((channels != channels.take([0], axis)).any())


def repeated(channels: np.ndarray) -> np.ndarray:
    """Returns an equal array that holds each slice once along axes where all slices are equal."""
    small = channels
    for axis in range(channels.ndim):
        if not varies(small, axis):
            small = small.take([0], axis)
    return np.broadcast_to(small, channels.shape)


def compact(channels: np.ndarray) -> np.ndarray:
    """Returns an array of channels with size 1 along each axis that only repeats its elements."""
    index = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in channels.strides)
    return channels[index]

"""Moves elements from one place to another with as few descriptors of the vector unit as possible.

Whatever moves, selects, repeats or joins elements is a list of pairs (source element, target
element). The vector unit reads one word per cycle, rotates its lanes by a fixed number, and writes
some of the lanes. One descriptor walks along words at equal distances. Elements are therefore
grouped by word, by the rotation of their lanes and by adjacent lanes, and groups at equal distances
share a descriptor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from photomask.chip.forms.rtl.memory_map import Place

OUTSIDE = -1
"""The source of an element that is padding."""


@dataclass(frozen=True)
class ElementStream:
    """The source and the target of each element that is moved.

    Element `i` comes from lane `source_lane[i]` of word `source_word[i]` and goes to lane
    `target_lane[i]` of word `target_word[i]`. All arrays are int64 and equally long. `parameter[i]`
    is the address of the parameter word that the target lane needs.
    """

    source_word: np.ndarray
    source_lane: np.ndarray
    target_word: np.ndarray
    target_lane: np.ndarray
    parameter: np.ndarray

    def chosen(self, which: np.ndarray) -> "ElementStream":
        """Returns a part of the elements, or all elements in another order."""
        return ElementStream(
            self.source_word[which],
            self.source_lane[which],
            self.target_word[which],
            self.target_lane[which],
            self.parameter[which],
        )


@dataclass(frozen=True)
class Run:
    """The words that one descriptor moves: `count` words at equal distances at both ends."""

    first_lane: int
    last_lane: int
    rotation: int
    parameter: int
    source: int
    """The address of the first word, or `OUTSIDE`."""
    source_step: int
    target: int
    target_step: int
    count: int


def stream_between(
    source: Place, target: Place, elements: np.ndarray, parameter: int
) -> ElementStream:
    """Returns the stream that fills an edge.

    Args:
        source: the place of the input.
        target: the place of the output.
        elements: for each output element, in row-major order, the number of the input element, or
            `OUTSIDE`.
        parameter: the address of the parameter word for all elements.
    """
    flat = elements.reshape(-1)
    target_word, target_lane = target.locate(np.arange(flat.size))
    source_word, source_lane = source.locate(np.maximum(flat, 0))
    outside = flat == OUTSIDE
    return ElementStream(
        np.where(outside, OUTSIDE, source_word),
        np.where(outside, target_lane, source_lane),
        target_word,
        target_lane,
        np.full(flat.size, parameter),
    )


def runs_of(stream: ElementStream, lanes: int) -> Iterator[Run]:
    """Yields runs that together move every element once."""
    if not len(stream.target_word):
        return
    rotation = (stream.target_lane - stream.source_lane) % lanes
    order = np.argsort(stream.target_word * lanes + stream.target_lane, kind="stable")
    stream, rotation = stream.chosen(order), rotation[order]
    keys = np.stack([stream.target_word, stream.parameter, rotation, stream.source_word])
    new_group = np.ones(rotation.size, dtype=bool)
    new_group[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    new_group[1:] |= np.diff(stream.target_lane) != 1
    first = np.flatnonzero(new_group)
    last = np.append(first[1:], rotation.size) - 1
    first_lane, last_lane = stream.target_lane[first], stream.target_lane[last]
    groups, rotation = stream.chosen(first), rotation[first]
    kinds = np.stack([groups.parameter, rotation, first_lane, last_lane])
    order = np.lexsort((groups.target_word, *kinds))
    groups, kinds = groups.chosen(order), kinds[:, order]
    borders = np.flatnonzero((kinds[:, 1:] != kinds[:, :-1]).any(axis=0)) + 1
    for members in np.split(np.arange(kinds.shape[1]), borders):
        parameter, turn, low, high = (int(kind) for kind in kinds[:, members[0]])
        words = zip(
            *_even_words(groups.source_word[members], groups.target_word[members]), strict=True
        )
        for source, source_step, target, target_step, count in words:
            yield Run(low, high, turn, parameter, source, source_step, target, target_step, count)


def _even_words(source: np.ndarray, target: np.ndarray) -> tuple[list[int], ...]:
    """Cuts two lists of words wherever their distances change.

    Returns:
        The first source, source step, first target, target step and count of each stretch.
    """
    starts: list[int] = []
    counts: list[int] = []
    source_steps, target_steps = np.diff(source), np.diff(target)
    padding = source == OUTSIDE
    # A word continues a stretch if the distances at both ends stay the same, and if this word and
    # the next are both padding or both not.
    joined = np.stack([source_steps, target_steps])
    same = (joined[:, 1:] == joined[:, :-1]).all(axis=0)
    breaks = np.append(np.flatnonzero(~same) + 1, len(source_steps))
    alike = padding[1:] == padding[:-1]
    position = 0
    while position < len(source):
        end = position
        if position < len(source_steps) and alike[position]:
            end = int(breaks[np.searchsorted(breaks, position, side="right")])
        starts.append(position)
        counts.append(end - position + 1)
        position = end + 1
    at = np.array(starts)
    following = np.minimum(at + 1, len(source) - 1)
    many = np.array(counts) > 1
    return (
        source[at].tolist(),
        np.where(many, source[following] - source[at], 0).tolist(),
        target[at].tolist(),
        np.where(many, target[following] - target[at], 1).tolist(),
        counts,
    )

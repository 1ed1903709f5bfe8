"""Compresses tiles of weights for a sparse array: N weights of each M inputs, and their positions.

A pattern is a set of N positions p0 < p1 < ... in a group of M inputs. The weight memory holds its
number, `C(p0, 1) + C(p1, 2) + ...`, which counts all sets without a gap. It takes fewer bits than N
positions: 3 instead of 4 for 2:4. Pattern 0 is 0, 1, 2, ... .

Source: the combinatorial number system, Knuth, The Art of Computer Programming 4A, 7.2.1.3.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from photomask.chip.sparsity import NofM


@dataclass(frozen=True)
class HeldTile:
    """What the array holds in one pass.

    Attributes:
        weights: int64 [rows, columns].
        patterns: int64 [groups of rows, columns], the number of each group's pattern; None if the
            tile is dense, so that each row reads one input.
    """

    weights: np.ndarray
    patterns: np.ndarray | None


def compress(tile: np.ndarray, pattern: NofM) -> list[HeldTile]:
    """Splits a tile into passes that keep the pattern and add up to it; none for a tile of zeros.

    Each pass takes the next N weights of each group that are not zero. If there are fewer, the
    lowest positions that are still free hold zeros.

    Args:
        tile: int64 [groups * M, columns].
        pattern: what one pass can hold.
    """
    groups = tile.reshape(-1, pattern.group, tile.shape[1])
    used = groups != 0
    rank = np.cumsum(used, axis=1) - 1
    passes = -(-int(used.sum(axis=1).max()) // pattern.kept)
    found = []
    for number in range(passes):
        chosen = used & (rank // pattern.kept == number)
        positions = np.argsort(~chosen, axis=1, kind="stable")[:, : pattern.kept]
        positions.sort(axis=1)
        values = np.take_along_axis(np.where(chosen, groups, 0), positions, axis=1)
        weights = values.reshape(-1, tile.shape[1])
        found.append(HeldTile(weights, pattern_numbers(positions)))
    return found


def pattern_numbers(positions: np.ndarray) -> np.ndarray:
    """Returns the number of each pattern, int64 [groups, columns].

    Args:
        positions: int64 [groups, N, columns], ascending along the second axis.
    """
    largest = int(positions.max()) + 1
    total = np.zeros((positions.shape[0], positions.shape[2]), dtype=np.int64)
    for slot in range(positions.shape[1]):
        below = np.array([math.comb(p, slot + 1) for p in range(largest)], dtype=np.int64)
        total += below[positions[:, slot]]
    return total


def positions_of(numbers: np.ndarray, pattern: NofM) -> np.ndarray:
    """Returns the positions of patterns by their numbers, int64 [..., N], ascending."""
    sets = itertools.combinations(range(pattern.group), pattern.kept)
    ordered = np.array(sorted(sets, key=lambda one: one[::-1]), dtype=np.int64)
    return ordered[numbers]

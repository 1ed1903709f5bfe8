"""Collects the constants of a lowered program as memory images: weights, parameters and tables."""

import numpy as np

MULTIPLIER_BITS = 31
"""The width in bits of the widest multiplier that a target can have."""
SHIFT_BITS = 6


class ImageBuilder:
    """Collects constants and returns their addresses.

    Parameter word 0 is the identity: multiplier 1 and shift 0 in every lane.

    A word of weights holds the weights of a group of rows, with their pattern if the array is
    sparse. A group of a dense array is one row.

    Attributes:
        weights: int64 [words, columns * rows of a group], the first row of a column first.
        patterns: int64 [words, columns], the numbers of the patterns; all 0 if the array is dense.
        parameters: int64 [words, lanes]; biases, or multiplier << 6 | shift.
        tables: int64 [entries].
        multiplier_bits: the width of the widest multiplier in bits.
    """

    def __init__(self, lanes: int, kept: int = 1):
        self.lanes = lanes
        self._kept = kept
        self._weights: list[np.ndarray] = []
        self._patterns: list[np.ndarray] = []
        self._weight_words = 0
        self._known_tiles: dict[bytes, int] = {}
        self._parameters: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}
        self._tables: list[np.ndarray] = []
        self._table_entries = 0
        self.multiplier_bits = 1
        self.scale_word(np.ones(lanes, dtype=np.int64), np.zeros(lanes, dtype=np.int64))

    def tile(self, weights: np.ndarray, patterns: np.ndarray | None = None) -> int:
        """Adds the weights of one tile and returns their address.

        The groups of rows are stored in reverse order, because the array takes the last one first.

        Args:
            weights: int64 [rows, columns].
            patterns: int64 [groups, columns]; None for a dense tile, whose patterns are all 0.
        """
        address, columns = self._weight_words, weights.shape[1]
        groups = weights.reshape(-1, self._kept, columns).transpose(0, 2, 1)
        words = groups.reshape(len(groups), -1)[::-1]
        if patterns is None:
            patterns = np.zeros((len(words), columns), dtype=np.int64)
        self._weights.append(words)
        self._patterns.append(patterns[::-1])
        self._weight_words += len(words)
        return address

    @property
    def has_tiles(self) -> bool:
        """Whether a tile was added."""
        return bool(self._weights)

    def shared_tile(self, weights: np.ndarray) -> int:
        """Returns the address of a tile; the tile is added unless this method added it before."""
        key = weights.tobytes()
        if key not in self._known_tiles:
            self._known_tiles[key] = self.tile(weights)
        return self._known_tiles[key]

    def bias_word(self, biases: np.ndarray, first_lane: int) -> int:
        """Adds a word of biases that begin in lane `first_lane`, and returns its address."""
        word = np.zeros(self.lanes, dtype=np.int64)
        word[first_lane : first_lane + len(biases)] = biases
        return self._parameter(word)

    def scale_word(self, multiplier: np.ndarray, shift: np.ndarray) -> int:
        """Adds a word with one multiplier and one shift for each lane from lane 0 on.

        Returns the address of the word.
        """
        self.multiplier_bits = max(self.multiplier_bits, int(multiplier.max()).bit_length())
        word = np.zeros(self.lanes, dtype=np.int64)
        word[: len(multiplier)] = multiplier << SHIFT_BITS | shift
        return self._parameter(word)

    def channel_words(self, *values: np.ndarray) -> int:
        """Adds a word of each kind of value for each block of channels, block by block.

        Args:
            *values: int64 arrays of shape [channels], one for each kind of value.

        Returns:
            The address of the first block's first word.
        """
        blocks = -(-len(values[0]) // self.lanes)
        padded = np.zeros((len(values), blocks * self.lanes), dtype=np.int64)
        padded[:, : len(values[0])] = values
        address = len(self._parameters)
        words = padded.reshape(len(values), blocks, self.lanes).transpose(1, 0, 2)
        self._parameters += list(words.reshape(-1, self.lanes))
        return address

    def table(self, entries: np.ndarray) -> int:
        """Adds a table and returns the address of its first entry."""
        address = self._table_entries
        self._tables.append(entries)
        self._table_entries += len(entries)
        return address

    def _parameter(self, word: np.ndarray) -> int:
        address = self._known.setdefault(word.tobytes(), len(self._parameters))
        if address == len(self._parameters):
            self._parameters.append(word)
        return address

    @property
    def weights(self) -> np.ndarray:
        """The weights of all tiles, with one word for each group of rows."""
        return np.concatenate(self._weights) if self._weights else np.zeros((1, 1), np.int64)

    @property
    def patterns(self) -> np.ndarray:
        """The numbers of the patterns of all tiles, with one row for each word of weights."""
        return np.concatenate(self._patterns) if self._patterns else np.zeros((1, 1), np.int64)

    @property
    def parameters(self) -> np.ndarray:
        """All parameter words."""
        return np.stack(self._parameters)

    @property
    def tables(self) -> np.ndarray:
        """The entries of all tables."""
        return np.concatenate(self._tables) if self._tables else np.zeros(1, np.int64)

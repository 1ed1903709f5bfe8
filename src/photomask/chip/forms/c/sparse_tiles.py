"""How the outputs of a layer with many zeros are cut into tiles, and where their operands lie."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.forms.c.plane import Plane

VECTOR = 16
"""The operands of 16 bits that a wide register holds. Narrow tiles take it from two rows."""
MOST_SUMS = 64
"""The most sums of a tile: they take half of the sixteen wide registers of a processor."""


@dataclass(frozen=True)
class Tiles:
    """How the outputs of one channel are cut into parts of columns, bands of rows, and tiles.

    A part, band or tile that would reach beyond the last column or row begins earlier instead, and
    computes some outputs once more.
    """

    rows: int
    """The rows of a tile. If the output has fewer, the rest is not stored."""
    columns: int
    """The columns of a tile and of a part. If the output has fewer, the rest is not stored."""
    band: int
    """The rows whose operands are in the planes at the same time."""

    @classmethod
    def of(cls, plane: Plane) -> "Tiles":
        """Returns tiles of as many sums as possible, and bands that copy few rows twice."""
        parts = -(-plane.out_width // MOST_SUMS)
        widest = -(-plane.out_width // parts)
        narrow = widest <= VECTOR // 2
        columns = VECTOR // 2 if narrow else -(-widest // VECTOR) * VECTOR
        together = 2 if narrow else 1
        rows = min(MOST_SUMS // columns, -(-plane.out_height // together) * together)
        span = (plane.kernel[0] - 1) * plane.dilation[0] // plane.stride[0]
        band = min(max(rows, plane.out_height), rows * max(1, -(-2 * span // rows)))
        return cls(rows, columns, band)

    @property
    def sums(self) -> int:
        """The number of sums of a tile."""
        return self.rows * self.columns

    def computed(self, plane: Plane) -> int:
        """Returns how many sums all tiles of one channel have, those never stored included."""
        parts = -(-plane.out_width // self.columns)
        bands = -(-plane.out_height // self.band)
        return parts * bands * -(-self.band // self.rows) * self.sums


@dataclass(frozen=True)
class Planes:
    """The operands of a part of a band: for each channel, a plane for each phase of the strides.

    The phase (a, b) has the rows a, a + stride, ... and the columns b, b + stride, ... of the
    padded input. Adjacent outputs therefore read adjacent elements.
    """

    pitch: int
    """The elements of a row."""
    bases: dict[tuple[int, int], int]
    """Where each phase begins within a channel."""
    heights: dict[tuple[int, int], int]
    """The number of rows of each phase."""
    channel: int
    """The elements of a channel."""

    @classmethod
    def of(cls, plane: Plane, tiles: Tiles) -> "Planes":
        """Returns the planes for the tiles of a convolution."""
        rows, columns = _taps(plane, 0), _taps(plane, 1)
        pitch = tiles.columns + max(step for _, step in columns)
        bases: dict[tuple[int, int], int] = {}
        heights: dict[tuple[int, int], int] = {}
        used = 0
        for a in sorted({phase for phase, _ in rows}):
            for b in sorted({phase for phase, _ in columns}):
                bases[a, b] = used
                heights[a, b] = tiles.band + max(step for phase, step in rows if phase == a)
                used += heights[a, b] * pitch
        return cls(pitch, bases, heights, used)

    def offsets(self, plane: Plane, channels: int) -> np.ndarray:
        """Returns where each term of the first output lies, [kernel positions * channels]."""
        found = [
            self.bases[a, b] + i * self.pitch + j + c * self.channel
            for a, i in _taps(plane, 0)
            for b, j in _taps(plane, 1)
            for c in range(channels)
        ]
        return np.array(found, dtype=np.int64)


def _taps(plane: Plane, axis: int) -> list[tuple[int, int]]:
    """Returns the phase of each kernel position along an axis, and its step within the phase."""
    stride, dilation = plane.stride[axis], plane.dilation[axis]
    return [(k * dilation % stride, k * dilation // stride) for k in range(plane.kernel[axis])]

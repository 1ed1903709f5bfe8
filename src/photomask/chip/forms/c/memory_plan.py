"""Plans one static arena for all edges; buffers that are needed at different times share bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ALIGNMENT = 16


@dataclass(frozen=True)
class Buffer:
    """Bytes that are needed from one moment to another, both included."""

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: "Buffer") -> bool:
        """Tells whether both buffers are needed at the same moment."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """The offsets of all buffers in the arena."""

    buffers: tuple[Buffer, ...]
    offsets: Mapping[str, int]
    """The offsets in bytes, by name of the buffer; each is a multiple of `ALIGNMENT`."""
    bytes: int
    """The size of the arena in bytes."""
    needed: int
    """The most bytes that are needed at one moment; no plan can be smaller."""


def plan_memory(buffers: Iterable[Buffer]) -> MemoryPlan:
    """Places buffers, the largest first, each into the smallest gap that it fits into.

    A gap is a range of bytes that no buffer placed before uses while the new buffer is needed.
    """
    placed: list[tuple[int, Buffer]] = []
    listed = tuple(buffers)
    for buffer in sorted(listed, key=lambda b: (-b.bytes, b.first, b.name)):
        busy = sorted((at, at + _aligned(b.bytes)) for at, b in placed if b.meets(buffer))
        placed.append((_best_gap(busy, _aligned(buffer.bytes)), buffer))
    moments = {buffer.first for buffer in listed}
    return MemoryPlan(
        buffers=listed,
        offsets={buffer.name: at for at, buffer in placed},
        bytes=max((at + _aligned(buffer.bytes) for at, buffer in placed), default=0),
        needed=max(
            (
                sum(_aligned(b.bytes) for b in listed if b.first <= moment <= b.last)
                for moment in moments
            ),
            default=0,
        ),
    )


def _best_gap(busy: list[tuple[int, int]], size: int) -> int:
    best: int | None = None
    best_room = 0
    end = 0
    for start, stop in busy:
        room = start - end
        if room >= size and (best is None or room < best_room):
            best, best_room = end, room
        end = max(end, stop)
    return end if best is None else best


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT

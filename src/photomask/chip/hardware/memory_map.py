"""Where the edges of a program lie in the reference design's two memories."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from photomask.chip.formats import IntFormat
from photomask.chip.program import Edge, IntegerProgram
from photomask.documents import Document

Memory = Literal["activations", "accumulators"]
MEMORIES: tuple[Memory, Memory] = ("activations", "accumulators")
"""A memory's number in `dumps.hex` is its position."""
ACCUMULATING = frozenset({"convolution", "linear", "add", "multiply", "average_pool", "sum"})
"""Operators whose output is a sum or a product, whatever its width."""


class Place(Document):
    """The words of one edge.

    A word has `lanes` lanes, one a channel; an edge [1, C, *positions] is blocks of `lanes`
    channels, each the block's positions in row-major order. Channel `c` at position `p` lies in
    lane `c % lanes` of word `address + c // lanes * positions + p`.
    """

    memory: Memory
    address: int
    channels: int
    positions: int
    lanes: int
    lane_bits: int
    signed: bool

    @property
    def blocks(self) -> int:
        """Groups of `lanes` channels, the last one filled up."""
        return -(-self.channels // self.lanes)

    @property
    def words(self) -> int:
        """Words that the edge takes."""
        return self.blocks * self.positions

    def block_address(self, channel: int) -> int:
        """Returns the first word of the block that holds `channel`."""
        return self.address + channel // self.lanes * self.positions

    def words_of(self, values: np.ndarray) -> np.ndarray:
        """Returns int64 [words, lanes] of an edge's integers; lanes without a channel are 0."""
        padded = np.zeros((self.blocks * self.lanes, self.positions), dtype=np.int64)
        padded[: self.channels] = values.reshape(self.channels, self.positions)
        blocks = padded.reshape(self.blocks, self.lanes, self.positions)
        return blocks.transpose(0, 2, 1).reshape(self.words, self.lanes)

    def values_of(self, words: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Returns the integers of an edge of `shape` from int64 [words, lanes]."""
        blocks = words.reshape(self.blocks, self.positions, self.lanes).transpose(0, 2, 1)
        flat = blocks.reshape(self.blocks * self.lanes, self.positions)
        return flat[: self.channels].reshape(*shape)

    def locate(self, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns word and lane of elements that are numbered in row-major order."""
        channel, position = np.divmod(elements, self.positions)
        block, lane = np.divmod(channel, self.lanes)
        return self.address + block * self.positions + position, lane


@dataclass(frozen=True)
class _Life:
    """When an edge's words are taken, as step numbers, both ends included."""

    name: str
    memory: Memory
    words: int
    first: int
    last: int


def memory_of(format: IntFormat, kind: str | None, activation_bits: int) -> Memory:
    """Returns where an edge lies: sums, and what is too wide for activations, as accumulators.

    Args:
        format: of the edge.
        kind: the operator that computes it; None for an input.
        activation_bits: of the accelerator.
    """
    if kind in ACCUMULATING or format.bits > activation_bits:
        return "accumulators"
    return "activations"


def place_edges(
    program: IntegerProgram, lanes: int, activation_bits: int, accumulator_bits: int
) -> dict[str, Place]:
    """Gives every edge its words; edges that never live at the same time share them.

    Inputs and constants lie in the memories from the start, outputs stay to the end. Each edge
    takes the lowest addresses that are free throughout its life.
    """
    lives = _lives(program, lanes, activation_bits)
    addresses: dict[str, int] = {}
    for number, life in enumerate(lives):
        taken = sorted(
            (addresses[other.name], addresses[other.name] + other.words)
            for other in lives[:number]
            if other.memory == life.memory and other.first <= life.last and life.first <= other.last
        )
        address = 0
        for begin, end in taken:
            if address + life.words <= begin:
                break
            address = max(address, end)
        addresses[life.name] = address
    return {
        life.name: Place(
            memory=life.memory,
            address=addresses[life.name],
            channels=channels_of(program.edges[life.name]),
            positions=positions_of(program.edges[life.name]),
            lanes=lanes,
            lane_bits=activation_bits if life.memory == "activations" else accumulator_bits,
            signed=life.memory == "accumulators" or program.edges[life.name].format.signed,
        )
        for life in lives
    }


def _lives(program: IntegerProgram, lanes: int, activation_bits: int) -> list[_Life]:
    makers = {step.output: (number, step.operator) for number, step in enumerate(program.steps)}
    last_use = {
        name: number for number, step in enumerate(program.steps) for name in step.inputs
    } | dict.fromkeys(program.outputs, len(program.steps))
    lives = []
    for name, edge in program.edges.items():
        number, operator = makers.get(name, (-1, None))
        kind = operator.kind if operator is not None else None
        blocks = -(-channels_of(edge) // lanes)
        lives.append(
            _Life(
                name=name,
                memory=memory_of(edge.format, kind, activation_bits),
                words=blocks * positions_of(edge),
                first=-1 if kind == "constant" else number,
                last=last_use.get(name, number),
            )
        )
    return lives


def channels_of(edge: Edge) -> int:
    """Returns the size of axis 1."""
    return edge.shape[1] if len(edge.shape) > 1 else 1


def positions_of(edge: Edge) -> int:
    """Returns how many elements a channel has."""
    return math.prod(edge.shape[2:])


def depths(places: Mapping[str, Place]) -> dict[Memory, int]:
    """Returns how many words of each memory the places reach."""
    return {
        memory: max(
            (place.address + place.words for place in places.values() if place.memory == memory),
            default=1,
        )
        for memory in MEMORIES
    }


def words_to_hex(words: np.ndarray, lane_bits: int) -> list[str]:
    """Returns one hexadecimal number a word, lane 0 in the least significant bits.

    Args:
        words: int64 [words, lanes]; negative ones become two's complement.
        lane_bits: bits of a lane, at most 64.
    """
    count, lanes = words.shape
    digits = -(-lanes * lane_bits // 4)
    if lane_bits % 4 == 0:
        shifts = np.arange(lane_bits - 4, -4, -4)
        nibbles = (words[:, ::-1, None] >> shifts) & 15
        text = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles].reshape(count, digits)
        return [row.tobytes().decode() for row in np.ascontiguousarray(text)]
    mask = (1 << lane_bits) - 1
    rows = words.tolist()
    return [
        f"{sum((value & mask) << (lane * lane_bits) for lane, value in enumerate(row)):0{digits}x}"
        for row in rows
    ]


def words_from_hex(lines: Sequence[str], lanes: int, lane_bits: int, signed: bool) -> np.ndarray:
    """Reads what `words_to_hex` wrote: int64 [words, lanes]."""
    mask = (1 << lane_bits) - 1
    words = np.empty((len(lines), lanes), dtype=np.int64)
    if lane_bits % 4 == 0 and lines:
        digits = lane_bits // 4
        text = "".join(line.zfill(lanes * digits) for line in lines)
        raw = np.frombuffer(bytes.fromhex(text.zfill(len(text) + len(text) % 2)), np.uint8)
        nibbles = np.stack([raw >> 4, raw & 15], axis=1).reshape(-1)[-len(text) :]
        parts = nibbles.reshape(len(lines), lanes, digits)[:, ::-1].astype(np.int64)
        words = (parts << np.arange(lane_bits - 4, -4, -4)).sum(axis=2)
    else:
        for row, line in enumerate(lines):
            number = int(line, 16)
            words[row] = [number >> (lane * lane_bits) & mask for lane in range(lanes)]
    if not signed:
        return words
    return words - ((words >> (lane_bits - 1)) << lane_bits)

"""Gives every edge of a program its place in one of the reference design's two memories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from photomask.chip.formats import IntFormat
from photomask.chip.forms.rtl.layouts import channel_axes, copies
from photomask.chip.operators import Family
from photomask.chip.program import IntegerProgram, Step
from photomask.documents import Document

Memory = Literal["activations", "accumulators"]
MEMORIES: tuple[Memory, Memory] = ("activations", "accumulators")
"""The two memories; the number of a memory in `dumps.hex` is its position here."""


class Place(Document):
    """The words of one edge in memory.

    A word has `lanes` lanes, each with one channel. One axis of an edge counts its channels. The
    positions are all other axes in row-major order. Channel `c` at position `p` lies in lane `c %
    lanes` of word `address + c // lanes * positions + p`.
    """

    memory: Memory
    address: int = Field(ge=0)
    channels: int = Field(ge=1)
    positions: int = Field(ge=1)
    inner: int = Field(ge=1)
    """The number of positions along the axes behind the channels.

    These are all positions of a map [1, C, H, W], and 1 for rows [1, T, C].
    """
    lanes: int = Field(ge=1)
    lane_bits: int = Field(ge=1, le=64)
    signed: bool

    @model_validator(mode="after")
    def _is_a_whole_number_of_rows(self) -> "Place":
        if self.positions % self.inner:
            raise ValueError(
                f"{self.positions} positions are not a multiple of the {self.inner} inner positions"
            )
        return self

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises an error if an edge of this shape does not fill the place.

        Raises:
            ValueError: the shape has more or fewer elements than the place.
        """
        if min(shape, default=1) < 1 or math.prod(shape) != self.channels * self.positions:
            raise ValueError(
                f"the shape {tuple(shape)} does not fill {self.channels} channels of "
                f"{self.positions} positions"
            )

    @property
    def blocks(self) -> int:
        """The number of blocks of `lanes` channels; the last block may be partly empty."""
        return -(-self.channels // self.lanes)

    @property
    def words(self) -> int:
        """The number of words that the edge takes."""
        return self.blocks * self.positions

    def block_address(self, channel: int) -> int:
        """Returns the first word of the block that holds `channel`."""
        return self.address + channel // self.lanes * self.positions

    def first_channel(self, word: int) -> int:
        """Returns the channel in lane 0 of a word."""
        return (word - self.address) // self.positions * self.lanes

    def words_of(self, values: np.ndarray) -> np.ndarray:
        """Returns int64 [words, lanes] for an edge's integers; lanes without a channel are 0."""
        padded = np.zeros((self.blocks * self.lanes, self.positions), dtype=np.int64)
        parts = values.reshape(-1, self.channels, self.inner).transpose(1, 0, 2)
        padded[: self.channels] = parts.reshape(self.channels, self.positions)
        blocks = padded.reshape(self.blocks, self.lanes, self.positions)
        return blocks.transpose(0, 2, 1).reshape(self.words, self.lanes)

    def values_of(self, words: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Returns the integers of an edge of this shape, read from int64 [words, lanes]."""
        blocks = words.reshape(self.blocks, self.positions, self.lanes).transpose(0, 2, 1)
        flat = blocks.reshape(self.blocks * self.lanes, self.positions)
        parts = flat[: self.channels].reshape(self.channels, -1, self.inner)
        return parts.transpose(1, 0, 2).reshape(*shape)

    def locate(self, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the word and the lane of elements that are numbered in row-major order."""
        row, after = np.divmod(elements, self.inner)
        before, channel = np.divmod(row, self.channels)
        position = before * self.inner + after
        block, lane = np.divmod(channel, self.lanes)
        return self.address + block * self.positions + position, lane


@dataclass(frozen=True)
class MemoryMap:
    """The places of all data of a program.

    Attributes:
        edges: the place of each edge, by the edge's name.
        copies: the places of inputs that a step copies into another layout, by step and number of
            the input.
    """

    edges: dict[str, Place]
    copies: dict[tuple[str, int], Place]

    def depths(self) -> dict[Memory, int]:
        """Returns how many words each memory needs at least."""
        depths: dict[Memory, int] = dict.fromkeys(MEMORIES, 1)
        for place in (*self.edges.values(), *self.copies.values()):
            depths[place.memory] = max(depths[place.memory], place.address + place.words)
        return depths


@dataclass(frozen=True)
class _Life:
    """The steps during which a place is occupied; both ends are included."""

    place: Place
    first: int
    last: int


def _memory_of(format: IntFormat, maker: Step | None, activation_bits: int) -> Memory:
    """Returns the memory of an edge.

    Sums, and edges that are too wide for the activation memory, lie in the accumulator memory.

    Args:
        format: the format of the edge.
        maker: the step that computes the edge; None for an input.
        activation_bits: the width of the accelerator's activations.
    """
    is_sum = maker is not None and maker.operator.accumulates
    return "accumulators" if is_sum or format.bits > activation_bits else "activations"


def place_edges(
    program: IntegerProgram, lanes: int, activation_bits: int, accumulator_bits: int
) -> MemoryMap:
    """Gives every edge its words; edges that are never needed at the same time may share words.

    Inputs and constants are in the memories from the start. Outputs stay until the end. Copies
    exist while their step runs. Each edge takes the lowest addresses that are free as long as it is
    needed.
    """
    axes = channel_axes(program)
    lane_bits: dict[Memory, int] = {
        "activations": activation_bits,
        "accumulators": accumulator_bits,
    }
    links = program.links
    last_use = {**links.last_reads, **dict.fromkeys(program.outputs, len(program.steps))}
    lives: list[_Life] = []
    for name, edge in program.edges.items():
        maker = links.makers.get(name)
        number = -1 if maker is None else links.positions[maker.name]
        memory = _memory_of(edge.format, maker, activation_bits)
        signed = memory == "accumulators" or edge.format.signed
        place = _place(edge.shape, axes[name], memory, lanes, lane_bits[memory], signed)
        is_constant = maker is not None and maker.operator.family is Family.CONSTANT
        first = -1 if is_constant else number
        lives.append(_settled(place, first, last_use.get(name, number), lives))
    edges = dict(zip(program.edges, (life.place for life in lives), strict=True))
    found: dict[tuple[str, int], Place] = {}
    for copy in copies(program, axes):
        number = links.positions[copy.step]
        source = edges[links.steps[copy.step].inputs[copy.number]]
        memory = "accumulators" if copy.in_accumulators else source.memory
        signed = copy.in_accumulators or source.signed
        place = _place(copy.shape, copy.axis, memory, lanes, lane_bits[memory], signed)
        lives.append(_settled(place, number, number, lives))
        found[copy.step, copy.number] = lives[-1].place
    return MemoryMap(edges, found)


def _place(
    shape: tuple[int, ...], axis: int, memory: Memory, lanes: int, lane_bits: int, signed: bool
) -> Place:
    """Returns the place of an edge with channels along `axis`, at address 0."""
    inner = math.prod(shape[axis + 1 :])
    return Place(
        memory=memory,
        address=0,
        channels=shape[axis],
        positions=math.prod(shape[:axis]) * inner,
        inner=inner,
        lanes=lanes,
        lane_bits=lane_bits,
        signed=signed,
    )


def _settled(place: Place, first: int, last: int, lives: Sequence[_Life]) -> _Life:
    """Returns the place moved to the lowest addresses that are free from step `first` to `last`."""
    taken = sorted(
        (other.place.address, other.place.address + other.place.words)
        for other in lives
        if other.place.memory == place.memory and other.first <= last and first <= other.last
    )
    address = 0
    for begin, end in taken:
        if address + place.words <= begin:
            break
        address = max(address, end)
    return _Life(place.model_copy(update={"address": address}), first, last)


def words_to_hex(words: np.ndarray, lane_bits: int) -> list[str]:
    """Returns one hexadecimal number for each word, with lane 0 in the least significant bits.

    Args:
        words: int64 [words, lanes]; negative numbers become two's complement.
        lane_bits: the bits of a lane, at most 64.
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
    """Returns the int64 [words, lanes] that `words_to_hex` wrote."""
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

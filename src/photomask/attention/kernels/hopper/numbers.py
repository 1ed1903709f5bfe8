"""The memory that the warps of a Hopper program share, and the 16 numbers that describe a tile."""

# Pyright reads the body of a kernel as Python, which it is not.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

from typing import NamedTuple

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# A producer describes a tile of a head to its consumers by 16 numbers. These are their places.
VALID = gl.constexpr(0)
PROMPT = gl.constexpr(1)
HEAD = gl.constexpr(2)
TILE = gl.constexpr(3)
ENTRY = gl.constexpr(4)
FIRST_ROW = gl.constexpr(5)
USED = gl.constexpr(6)
SCATTERED = gl.constexpr(7)
FIRST = gl.constexpr(8)
BEFORE = gl.constexpr(9)
MASKED = gl.constexpr(10)
BEHIND_FROM = gl.constexpr(11)  # where block 0 would start, because block numbers count from 0
TAIL = gl.constexpr(12)
BLOCKS = gl.constexpr(13)


class Blocks(NamedTuple):
    """The descriptors of the keys and values in the sequence and in the compact list."""

    key: TensorDescriptor
    value: TensorDescriptor
    listed_key: TensorDescriptor
    listed_value: TensorDescriptor


class Work(NamedTuple):
    """The shared memory of a program, and the barriers that say which warps may use it."""

    query: gl.shared_memory_descriptor
    key_blocks: gl.shared_memory_descriptor
    value_blocks: gl.shared_memory_descriptor
    full: gl.shared_memory_descriptor
    empty: gl.shared_memory_descriptor
    told: gl.shared_memory_descriptor
    told_full: gl.shared_memory_descriptor
    told_empty: gl.shared_memory_descriptor


@gluon.jit
def pick(b_numbers, WHICH: gl.constexpr):
    """Returns the number at a place among 16 numbers that every thread holds."""
    b_places = gl.arange(0, 16, b_numbers.type.layout)
    return gl.sum(gl.where(b_places == WHICH, b_numbers, 0), 0)


@gluon.jit
def put(b_numbers, WHICH: gl.constexpr, number):
    """Returns 16 numbers with the one at a place replaced."""
    b_places = gl.arange(0, 16, b_numbers.type.layout)
    return gl.where(b_places == WHICH, number, b_numbers)

"""Layers with zeros are computed from compressed constants, with the oracle's integers."""

import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.forms.c.test_writers import STRICT, assert_exact
from tests.chip.programs import ProgramBuilder

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.forms.c import generate_c
from photomask.chip.forms.c.sparse_weights import Entries
from photomask.chip.forms.c.zero_blocks import BlockList
from photomask.chip.operators import Convolution, Linear, Reshape
from photomask.chip.program import IntegerProgram
from photomask.chip.target import PRESETS

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
OWN_PROCESSOR = "cc -O1 -march=native -Wall -Wextra -Werror -Wconversion"
PLAIN = f"{STRICT} -U__SSE2__ -U__AVX2__"
INT8 = IntFormat(bits=8, signed=True)
INT32 = IntFormat(bits=32, signed=True)


def zeros(shape: tuple[int, ...], kind: str, random: np.random.Generator) -> np.ndarray:
    """Returns True where a weight is kept: single weights, blocks of 8x8, or 2:4."""
    outputs, inputs, *kernel = shape
    if kind == "blocks":
        grid = random.random((-(-outputs // 8), -(-inputs // 8), *kernel)) < 0.3
        return grid.repeat(8, axis=0).repeat(8, axis=1)[:outputs, :inputs]
    if kind == "2:4":
        ranks = random.random((outputs, inputs // 4, 4, *kernel)).argsort(axis=2).argsort(axis=2)
        return (ranks < 2).reshape(shape)
    return random.random(shape) < 0.08


def weights_of(
    shape: tuple[int, ...], kind: str, random: np.random.Generator, *, bits: int = 8
) -> tuple[dict[str, np.ndarray], dict[str, IntFormat]]:
    """Returns a weight with zeros, zero points and group multipliers, and a bias."""
    high = (1 << (bits - 1)) - 1
    kept = zeros(shape, kind, random)
    zero_point = random.integers(-3, 4, shape[0])
    trailing = (1,) * (len(shape) - 1)
    weight = random.integers(-high + 3, high - 3, shape)
    tensors = {
        "weight": np.where(kept, weight, zero_point.reshape(-1, *trailing)),
        "bias": random.integers(-9999, 9999, shape[0]),
        "weight_zero_point": zero_point,
    }
    formats = {
        role: IntFormat.holding(Interval(int(t.min()), int(t.max()))) for role, t in tensors.items()
    }
    return tensors, formats


def convolutions(make: ProgramBuilder, kind: str) -> list[str]:
    """Adds convolutions of every geometry, and the same with their results requantized."""
    random, outputs = make.random, []
    geometries = [
        # input, outputs, kernel, stride, dilation, padding, groups
        ((1, 16, 9, 7), 16, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 1),
        ((1, 8, 11, 13), 16, (3, 3), (2, 2), (1, 1), ((1, 0), (0, 1)), 1),
        ((1, 16, 12, 40), 8, (3, 3), (1, 1), (2, 1), ((2, 2), (1, 1)), 1),
        ((1, 8, 5, 70), 8, (1, 3), (1, 3), (1, 2), ((0, 0), (0, 0)), 1),
        ((1, 16, 10, 10), 16, (3, 2), (1, 2), (1, 1), ((3, 0), (1, 2)), 2),
        ((1, 16, 33), 8, (3,), (1,), (1,), ((1, 1),), 1),
    ]
    for number, (x, channels, kernel, stride, dilation, padding, groups) in enumerate(geometries):
        name = f"layer{number}"
        make.input(f"{name}.x", x)
        operator = Convolution(
            stride=stride, padding=padding, dilation=dilation, groups=groups, padding_value=-5
        )
        tensors, formats = weights_of((channels, x[1] // groups, *kernel), kind, random)
        sums = make.step(name, operator, [f"{name}.x"], tensors, formats)
        outputs.append(sums)
        if len(x) == 4:
            copy = make.step(f"{name}.again", operator, [f"{name}.x"], tensors, formats)
            outputs.append(make.requantize(f"{name}.codes", copy, INT8))
    # Two images in one sample.
    make.input("images", (1, 2048))
    images = make.step("two", Reshape(shape=(16, 8, 8)), ["images"], format=INT8)
    tensors, formats = weights_of((24, 16, 1, 1), kind, random)
    sums = make.step("both", geometry(), [images], tensors, formats)
    outputs.append(make.step("one", Reshape(shape=(3072,)), [sums], format=INT32))
    return outputs


def geometry() -> Convolution:
    """Returns a convolution without padding and strides."""
    return Convolution(
        stride=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1), groups=1, padding_value=0
    )


def linears(make: ProgramBuilder, kind: str) -> list[str]:
    """Adds linear layers with one row, with some, and with more than a tile has."""
    outputs = []
    for number, shape in enumerate([(1, 32), (1, 5, 32), (1, 2, 9, 16), (1, 67, 16)]):
        name = f"linear{number}"
        make.input(f"{name}.x", shape, bits=7, signed=False)
        tensors, formats = weights_of((16, shape[-1]), kind, make.random)
        outputs.append(make.step(name, Linear(), [f"{name}.x"], tensors, formats))
    return outputs


def functions_of(program: IntegerProgram) -> dict[str, str]:
    """Returns the body of each step's function by the step's name in C."""
    text = generate_c(program).files["network.c"].decode()
    found = re.finditer(r"^static void (step_\w+)\([^{;]*\)\n\{\n(.*?)^\}", text, re.M | re.S)
    return {match[1]: match[2] for match in found}


@needs_compiler
@pytest.mark.parametrize("kind", ["blocks", "scattered", "2:4"])
@pytest.mark.parametrize("compiler", [STRICT, OWN_PROCESSOR, PLAIN])
def test_layers_with_zeros_compute_the_integers_of_the_oracle(kind: str, compiler: str):
    make = ProgramBuilder(seed=3)
    outputs = [*convolutions(make, kind), *linears(make, kind)]
    assert_exact(make.build(*outputs), make.codes(2), compiler)


def test_blocks_and_scattered_zeros_are_computed_from_compressed_constants():
    for kind, marks in (("blocks", ("sparse_blocks_",)), ("scattered", ("sparse_8x8_", "sparse_"))):
        make = ProgramBuilder(seed=3)
        functions = functions_of(make.build(*convolutions(make, kind)))
        used = [name for name, body in functions.items() if marks[-1] in body]
        assert len(used) >= 8, (kind, functions)
        assert any(marks[0] in body for body in functions.values())


def layer(weight: np.ndarray, shape: tuple[int, ...], bits: int = 8) -> IntegerProgram:
    make = ProgramBuilder(PRESETS["asic"].model_copy(update={"accumulator_bits": 40}))
    x = make.input("x", shape, bits=bits)
    formats = {"weight": IntFormat(bits=24, signed=True), "bias": IntFormat(bits=32, signed=True)}
    tensors = {"weight": weight, "bias": np.zeros(len(weight), np.int64)}
    if weight.ndim == 2:
        return make.build(make.step("layer", Linear(), [x], tensors, formats))
    return make.build(make.step("layer", geometry(), [x], tensors, formats))


def is_sparse(program: IntegerProgram) -> bool:
    return b"sparse_" in generate_c(program).files["network.c"]


def test_what_would_not_be_faster_stays_dense():
    random = np.random.default_rng(0)
    weight = random.integers(1, 100, (16, 32, 3, 3))
    kept = random.random(weight.shape)
    image = (1, 32, 18, 18)
    assert is_sparse(layer(weight * (kept < 0.2), image))
    assert not is_sparse(layer(weight, image))
    assert not is_sparse(layer(weight * 0, image))
    assert not is_sparse(layer(weight * (kept < 0.4), image))  # too many
    assert not is_sparse(layer(weight[:6] * (kept[:6] < 0.2), image))  # too few outputs
    assert not is_sparse(layer(weight * (kept < 0.2), (1, 32, 3, 5)))  # too few places
    assert not is_sparse(layer((weight * (kept < 0.2))[..., :1, :1], image))  # one position
    # Two of four pays where sums are short and tiles are wide.
    pairs = weight * zeros(weight.shape, "2:4", random)
    assert is_sparse(layer(pairs[:, :16], (1, 16, 34, 34)))
    assert not is_sparse(layer(pairs[:, :16], (1, 16, 18, 18)))
    assert not is_sparse(layer(pairs, (1, 32, 34, 34)))
    # Wide operands and wide sums are left to the dense code.
    assert not is_sparse(layer(weight * (kept < 0.2), image, bits=20))
    assert not is_sparse(layer(weight * (kept < 0.2) * 50_000, image))
    # A linear layer needs several rows, and blocks of zeros need none.
    matrix = random.integers(1, 100, (16, 64))
    scattered = matrix * (random.random(matrix.shape) < 0.2)
    assert is_sparse(layer(scattered, (1, 16, 64)))
    assert not is_sparse(layer(scattered, (1, 64)))
    blocks = matrix * zeros((16, 64), "blocks", random)
    assert is_sparse(layer(blocks, (1, 64)))
    assert not is_sparse(layer(blocks, (1, 64), bits=20))
    assert not is_sparse(layer(blocks[:12], (1, 64)))


def test_compressed_constants_take_fewer_bytes_than_dense_ones():
    random = np.random.default_rng(0)
    weight = random.integers(1, 100, (32, 64, 3, 3))
    for kind in ("blocks", "scattered"):
        sparse = layer(weight * zeros(weight.shape, kind, random), (1, 64, 16, 16))
        dense = layer(weight, (1, 64, 16, 16))
        sizes = [
            len(generate_c(program, weights="binary").files["constants.bin"])
            for program in (sparse, dense)
        ]
        assert sizes[0] < 0.5 * sizes[1], kind


@given(st.integers(1, 5), st.integers(1, 600), st.sampled_from([0.0, 0.005, 0.1, 0.6]), st.data())
def test_entries_stand_for_the_weights(outputs: int, terms: int, density: float, data):
    random = np.random.default_rng(data.draw(st.integers(0, 9999)))
    rows = random.integers(-9, 10, (outputs, terms)) * (random.random((outputs, terms)) < density)
    entries = Entries.of(rows)
    steps = entries.packed_steps
    if entries.step_bits == 4:
        steps = np.stack([steps & 15, steps >> 4], axis=1).reshape(-1)
    assert steps.size == entries.values.size == 2 * entries.pairs.sum()
    assert steps.size == 0 or steps.max() < 1 << entries.step_bits
    found, at = np.zeros_like(rows), 0
    for output, pairs in enumerate(entries.pairs):
        term = 0
        for _ in range(2 * pairs):
            term += steps[at]
            found[output, term] += entries.values[at]
            at += 1
    assert np.array_equal(found, rows)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 9999))
def test_blocks_stand_for_the_weights(tall: int, wide: int, seed: int):
    random = np.random.default_rng(seed)
    kept = (random.random((tall, wide)) < 0.4).repeat(8, axis=0).repeat(8, axis=1)
    rows = random.integers(-9, 10, kept.shape) * kept
    blocks = BlockList.of(rows)
    if blocks is None:
        return
    found, at = np.zeros_like(rows), 0
    for block_row, count in enumerate(blocks.counts):
        for _ in range(count):
            for pair, output, term in np.ndindex(4, 8, 2):
                place = 8 * blocks.places[at] + 2 * pair + term
                found[8 * block_row + output, place] = blocks.values[at, pair, output, term]
            at += 1
    assert np.array_equal(found, rows)

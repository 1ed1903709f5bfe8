import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.cost.tiling_cases import axes, machine, machines, packings, products
from tests.chip.programs import ProgramBuilder, small_program

from photomask.chip.cost.accelerator import PRESETS, Accelerator
from photomask.chip.cost.products import Product, packed_bytes
from photomask.chip.cost.tile_search import Choice, search, tile_sizes
from photomask.chip.cost.tiling import Tile, Tiling, tile
from photomask.chip.formats import IntFormat
from photomask.chip.operators import Linear, SpatialAxis
from photomask.errors import TargetError


def read_positions(axis: SpatialAxis, outputs: range, taps: range) -> set[int]:
    found = {p * axis.stride + k * axis.dilation - axis.padding for p in outputs for k in taps}
    return {position for position in found if 0 <= position < axis.input}


def weights_of(part: Tile) -> tuple:
    return (
        part.group,
        part.channels_out,
        part.channels_in,
        part.kernel_rows,
        part.kernel_columns,
    )


def activations_of(part: Tile) -> tuple:
    return (
        part.group,
        part.channels_in,
        part.rows,
        part.columns,
        part.kernel_rows,
        part.kernel_columns,
    )


def weight_count(part: Tile) -> int:
    taps = len(part.kernel_rows) * len(part.kernel_columns)
    return len(part.channels_out) * len(part.channels_in) * taps


def positions_of(product: Product, part: Tile) -> set[tuple[int, int, int, int]]:
    """The elements of the input that a tile reads."""
    down = read_positions(product.rows, part.rows, part.kernel_rows)
    across = read_positions(product.columns, part.columns, part.kernel_columns)
    return set(itertools.product([part.group], part.channels_in, down, across))


def walk(product: Product, tiling: Tiling) -> tuple[int, int]:
    """Returns weight bytes and activation elements that are read when tiles run one by one."""
    weight_bytes = elements = 0
    held_weights, held_activations = set(), None
    seen: set[tuple[int, int, int, int]] = set()
    for part in tiling.tiles():
        if weights_of(part) not in held_weights:
            held_weights = (held_weights if tiling.weights_stay else set()) | {weights_of(part)}
            weight_bytes += packed_bytes(product.weight, weight_count(part))
        if tiling.activations_stay:
            seen |= positions_of(product, part)
        elif activations_of(part) != held_activations:
            held_activations = activations_of(part)
            elements += len(positions_of(product, part))
    return weight_bytes, elements + len(seen)


def group_bytes(product: Product, tiling: Tiling) -> tuple[int, int]:
    """Weights and activations of the first group, as they lie in the buffers."""
    parts = [part for part in tiling.tiles() if part.group == 0]
    different = {weights_of(part): weight_count(part) for part in parts}
    weights = sum(packed_bytes(product.weight, count) for count in different.values())
    read = set().union(*(positions_of(product, part) for part in parts))
    return weights, packed_bytes(product.activation, len(read))


def tiled(product: Product, accelerator: Accelerator) -> tuple[Tiling, Choice]:
    choice = search(product, accelerator)
    assert choice is not None
    return Tiling.of("step", product, choice), choice


@given(products, machines)
def test_every_product_is_in_exactly_one_tile(product: Product, accelerator: Accelerator):
    tiling, _ = tiled(product, accelerator)
    seen = np.zeros((product.groups, *tiling.whole.model_dump().values()), dtype=int)
    parts = list(tiling.tiles())
    for part in parts:
        axes = (part.channels_out, part.channels_in, part.rows, part.columns)
        seen[np.ix_([part.group], *axes, part.kernel_rows, part.kernel_columns)] += 1
    assert (seen == 1).all()
    assert seen.size == product.multiply_accumulates
    assert len(parts) == tiling.tile_count


@given(products, machines)
def test_two_tiles_fit_every_buffer(product: Product, accelerator: Accelerator):
    tiling, _ = tiled(product, accelerator)
    parts = list(tiling.tiles())
    weights = max(packed_bytes(product.weight, weight_count(part)) for part in parts)
    patch = max(
        packed_bytes(product.activation, len(positions_of(product, part))) for part in parts
    )
    sums = max(len(p.channels_out) * len(p.rows) * len(p.columns) for p in parts) * 8
    assert tiling.weight_tile_bytes == weights <= accelerator.weight_buffer_bytes / 2
    assert patch <= tiling.activation_tile_bytes <= accelerator.activation_buffer_bytes / 2
    assert tiling.accumulator_tile_bytes == sums <= accelerator.accumulator_buffer_bytes / 2
    kept = group_bytes(product, tiling)
    assert tiling.weights_stay == (2 * kept[0] <= accelerator.weight_buffer_bytes)
    assert tiling.activations_stay == (2 * kept[1] <= accelerator.activation_buffer_bytes)


@given(products, machines)
def test_traffic_is_what_running_the_tiles_reads_and_at_least_everything_once(
    product: Product, accelerator: Accelerator
):
    tiling, _ = tiled(product, accelerator)
    weight_bytes, elements = walk(product, tiling)
    assert tiling.weight_bytes == weight_bytes
    packing = product.activation
    exact = packed_bytes(packing, elements)
    # Each time that all activations are read, their last word may be padded.
    assert exact <= tiling.activation_bytes < exact + 4 * (1 + product.channels_out)
    count = product.groups * product.channels_out * product.channels_in * product.taps
    assert tiling.weight_bytes >= count * product.weight.format.bits / 8
    down = read_positions(product.rows, range(product.rows.output), range(product.rows.kernel))
    across = read_positions(
        product.columns, range(product.columns.output), range(product.columns.kernel)
    )
    read = product.groups * product.channels_in * len(down) * len(across)
    assert tiling.activation_bytes >= packed_bytes(packing, read)


@given(products, machines)
def test_the_folds_of_a_tiling_are_those_of_its_tiles(product: Product, accelerator: Accelerator):
    tiling, choice = tiled(product, accelerator)
    rows, columns = accelerator.rows, accelerator.columns
    groups = {name: set() for name in ("reduction", "outputs", "pixels")}
    for part in tiling.tiles():
        groups["reduction"].add((part.channels_in, part.kernel_rows, part.kernel_columns))
        groups["outputs"].add((part.channels_out,))
        groups["pixels"].add((part.rows, part.columns))
    sizes = {
        name: [int(np.prod([len(axis) for axis in part])) for part in parts]
        for name, parts in groups.items()
    }
    folding = choice.folding
    assert folding.reduction == sum(sizes["reduction"])
    assert folding.reduction_tiles == len(sizes["reduction"])
    assert folding.reduction_row_folds == sum(-(-n // rows) for n in sizes["reduction"])
    assert folding.outputs == sum(sizes["outputs"])
    assert folding.output_tiles == len(sizes["outputs"])
    assert folding.output_column_folds == sum(-(-n // columns) for n in sizes["outputs"])
    assert folding.pixels == sum(sizes["pixels"])
    assert folding.pixel_tiles == len(sizes["pixels"])
    assert folding.pixel_row_folds == sum(-(-n // rows) for n in sizes["pixels"])
    assert folding.pixel_column_folds == sum(-(-n // columns) for n in sizes["pixels"])


def every_tiling(product: Product, accelerator: Accelerator) -> Iterator[Tiling]:
    """Yields every legal tiling of a small product, made without the search."""
    sizes = [product.channels_out, product.channels_in, product.rows.output, product.columns.output]
    for o, i, r, c in itertools.product(*(range(1, size + 1) for size in sizes)):
        if r > 1 and c < product.columns.output:
            continue
        for whole, outermost in itertools.product((True, False), repeat=2):
            made = Tiling.of(
                "step",
                product,
                Choice(o, i, r, c, whole, outermost, 0, 0, 0, False, False, 0, 0, 0, None),  # type: ignore[arg-type]
            )
            parts = list(made.tiles())
            weights = max(packed_bytes(product.weight, weight_count(part)) for part in parts)
            patch = max(
                packed_bytes(product.activation, len(positions_of(product, p))) for p in parts
            )
            sums = o * r * c * -(-accelerator.accumulator_bits // 8)
            if (
                2 * weights <= accelerator.weight_buffer_bytes
                and 2 * patch <= accelerator.activation_buffer_bytes
                and 2 * sums <= accelerator.accumulator_buffer_bytes
            ):
                kept = group_bytes(product, made)
                yield made.model_copy(
                    update={
                        "weights_stay": 2 * kept[0] <= accelerator.weight_buffer_bytes,
                        "activations_stay": 2 * kept[1] <= accelerator.activation_buffer_bytes,
                    }
                )


@settings(max_examples=12)
@given(
    st.builds(
        Product,
        groups=st.just(1),
        channels_out=st.integers(1, 3),
        channels_in=st.integers(1, 3),
        rows=axes().filter(lambda axis: axis.output <= 3),
        columns=axes().filter(lambda axis: axis.output <= 3),
        weight=packings.filter(lambda packing: packing.word_bits == 8),
        activation=packings.filter(
            lambda packing: packing.word_bits == 8 and 4 < packing.format.bits <= 8
        ),
    ),
    st.builds(
        machine,
        rows=st.just(1),
        columns=st.just(1),
        weights=st.integers(8, 40),
        activations=st.integers(8, 40),
        sums=st.integers(16, 200),
    ),
)
def test_no_legal_tiling_reads_less(product: Product, accelerator: Accelerator):
    chosen, _ = tiled(product, accelerator)
    least = min(sum(walk(product, other)) for other in every_tiling(product, accelerator))
    assert chosen.weight_bytes + chosen.activation_bytes == least


def test_tile_sizes_are_equal_parts_and_powers_of_two():
    assert tile_sizes(7, 1) == [7, 4, 3, 2, 1]
    assert tile_sizes(40, 16) == [40, 32, 16, 8, 4, 2, 1]
    assert tile_sizes(1 << 40, 16)[-1] == 1


def test_tiles_are_as_large_as_the_array_where_such_fit():
    program, _ = small_program()
    accelerator = machine(rows=4, columns=4, weights=4096, activations=4096, sums=4096)
    for tiling in tile(program, accelerator).values():
        assert tiling.tile.channels_out >= min(4, tiling.whole.channels_out)


@pytest.mark.parametrize(
    ("field", "need"),
    [("weight_buffer_bytes", 8), ("activation_buffer_bytes", 8), ("accumulator_buffer_bytes", 8)],
)
def test_what_does_not_fit_is_refused_with_what_it_needs(field: str, need: int):
    program, _ = small_program()
    accelerator = PRESETS["reference"].model_copy(update={field: need - 1})
    with pytest.raises(
        TargetError, match=rf"'layer1.conv' \(model.py:1\).*{field} of at least {need}, which is 7"
    ):
        tile(program, accelerator)
    assert tile(program, accelerator.model_copy(update={field: need}))


@pytest.mark.parametrize(
    ("field", "bits", "what"),
    [
        ("weight_bits", 8, "weights"),
        ("activation_bits", 8, "activations"),
        ("accumulator_bits", 17, "accumulators"),
    ],
)
def test_operands_wider_than_the_array_are_refused(field: str, bits: int, what: str):
    program, _ = small_program()
    accelerator = PRESETS["reference"].model_copy(update={field: bits - 1})
    with pytest.raises(TargetError, match=rf"has {what} of \d+ bits.*{field} {bits - 1}"):
        tile(program, accelerator)


def test_the_same_program_gets_the_same_tiles_and_they_survive_their_json():
    program, _ = small_program()
    first, again = (tile(program, PRESETS["edge"]) for _ in range(2))
    assert first == again
    for tiling in first.values():
        assert Tiling.parse(tiling.render(), "tiling") == tiling


def test_a_step_larger_than_the_model_counts_is_refused():
    make = ProgramBuilder()
    x = make.input("x", (1, 1 << 21, 1))
    tensors = {"weight": np.ones((1, 1), dtype=np.int64), "bias": np.zeros(1, dtype=np.int64)}
    formats = {role: IntFormat(bits=8, signed=True) for role in tensors}
    program = make.build(make.step("linear", Linear(), [x], tensors, formats))
    with pytest.raises(TargetError, match=r"'linear'.* 2,097,152 output positions along an axis"):
        tile(program, PRESETS["reference"])

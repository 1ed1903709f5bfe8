import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.compressed import pack_stream, unpack_stream
from photomask.chip.forms.memory.compressed_sparse import (
    SparseImage,
    SparsePacking,
    check_sparse,
    pack_sparse,
    unpack_sparse,
)
from photomask.chip.target import PRESETS
from photomask.errors import DataError, DocumentError

INT4 = IntFormat(bits=4, signed=True)


def packing_of(kept: int, group: int, format: IntFormat = INT4) -> SparsePacking:
    return SparsePacking.of(kept, group, format, PRESETS["asic"])


@st.composite
def sparse_weights(draw: st.DrawFn) -> tuple[np.ndarray, SparsePacking]:
    group = draw(st.integers(2, 9))
    packing = SparsePacking(
        kept=draw(st.integers(1, group)),
        group=group,
        format=IntFormat(bits=draw(st.integers(2, 8)), signed=True),
        word_bits=draw(st.integers(1, 40)),
        first_bit=draw(st.sampled_from(["least_significant", "most_significant"])),
    )
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 12)), *kernel)
    random = np.random.default_rng(draw(st.integers(0, 999)))
    weight = random.integers(packing.format.low, packing.format.high, shape, endpoint=True)
    for start in range(0, shape[1], group):
        part = weight[:, start : start + group]
        # Of each group all but N random members become zero; others may be zero already.
        ranks = random.random(part.shape).argsort(axis=1).argsort(axis=1)
        part[ranks >= packing.kept] = 0
    return weight, packing


@given(sparse_weights())
def test_a_sparse_weight_reads_back(case: tuple[np.ndarray, SparsePacking]):
    weight, packing = case
    image = pack_sparse(weight, packing)
    assert np.array_equal(unpack_sparse(image, packing, weight.shape), weight)
    check_sparse(image, packing, weight)
    bits = packing.slots(weight.shape) * (packing.format.bits + packing.index_bits)
    stored = image.bits_per_weight(packing, weight.shape) * weight.size
    assert bits <= round(stored) < bits + 2 * packing.word_bits


@given(sparse_weights(), st.data())
def test_a_group_with_one_weight_too_many_is_named(
    case: tuple[np.ndarray, SparsePacking], data: st.DataObject
):
    weight, packing = case
    if packing.kept >= min(packing.group, weight.shape[1]):
        return
    output = data.draw(st.integers(0, len(weight) - 1))
    position = tuple(data.draw(st.integers(0, size - 1)) for size in weight.shape[2:])
    weight = weight.copy()
    weight[(output, slice(0, packing.kept + 1), *position)] = 1
    count = int((weight[(output, slice(0, packing.group), *position)] != 0).sum())
    row = int(np.ravel_multi_index((output, *position), (len(weight), *weight.shape[2:])))
    with pytest.raises(
        DataError, match=rf"row {row} \(output {output}.*group 0 \(inputs 0 to "
    ) as e:
        pack_sparse(weight, packing)
    assert f"has {count} weights that are not zero; {packing.kept}:{packing.group}" in str(e.value)


def test_two_of_four_decoded_by_hand():
    weight = np.array([[0, 5, 0, -3, 7, 0, 0, 0]])
    packing = packing_of(2, 4)
    image = pack_sparse(weight, packing)
    # Group 0 keeps 5 at position 1 and -3 at 3; group 1 keeps 7 at 0 and a zero at 1.
    # Values of 4 bits from the right: 5, -3 = 0xd, 7, 0. Positions of 2 bits: 01, 11, 00, 01.
    assert [word.tobytes().hex() for word in image.values] == ["000007d5"]
    assert [word.tobytes().hex() for word in image.indices] == [f"{0b01_00_11_01:08x}"]
    assert unpack_sparse(image, packing, (1, 8)).tolist() == weight.tolist()


def test_rows_are_outputs_then_kernel_positions():
    weight = np.zeros((2, 2, 2), dtype=np.int64)
    weight[0, 1, 0] = 1
    weight[0, 0, 1] = 2
    weight[1, 1, 1] = 3
    packing = packing_of(1, 2)
    image = pack_sparse(weight, packing)
    assert unpack_stream(image.values, packing.values, 4).tolist() == [1, 2, 0, 3]
    assert unpack_stream(image.indices, packing.indices, 4).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("kept", "group", "index_bits", "bits"),
    [(2, 4, 2, 3.0), (1, 4, 2, 1.5), (2, 8, 3, 1.75), (3, 5, 3, 4.2), (1, 2, 1, 2.5)],
)
def test_bits_of_a_weight(kept: int, group: int, index_bits: int, bits: float):
    packing = packing_of(kept, group)
    shape = (64, 40, 2, 2)
    image = pack_sparse(np.zeros(shape, dtype=np.int64), packing)
    assert packing.index_bits == index_bits
    assert image.bits_per_weight(packing, shape) == pytest.approx(bits)


def altered(image: SparseImage, packing: SparsePacking, indices: list[int]) -> SparseImage:
    return SparseImage(image.values, pack_stream(np.array(indices), packing.indices))


def test_damage_is_found():
    packing = packing_of(2, 5)
    weight = np.array([[0, 5, 0, -3, 0, 7]])
    image = pack_sparse(weight, packing)
    with pytest.raises(DataError, match=r"row 0 \(output 0\), group 0 .* positions \[3, 1\]"):
        unpack_sparse(altered(image, packing, [3, 1, 0, 1]), packing, weight.shape)
    with pytest.raises(DataError, match=r"group 1 \(inputs 5 to 5\) has the positions \[0, 6\]"):
        unpack_sparse(altered(image, packing, [1, 3, 0, 6]), packing, weight.shape)
    with pytest.raises(DataError, match=r"group 1 .* behind the last input channel"):
        unpack_sparse(altered(image, packing, [1, 3, 1, 2]), packing, weight.shape)
    with pytest.raises(DataError, match=r"2 of 6 weights differ, first weight \[0, 3\]: found 0"):
        check_sparse(altered(image, packing, [1, 4, 0, 1]), packing, weight)
    with pytest.raises(DataError, match="4 elements"):
        unpack_sparse(SparseImage(image.values[:0], image.indices), packing, weight.shape)


def test_impossible_patterns_are_refused():
    for kept, group in ((5, 4), (0, 4), (1, 1)):
        document = packing_of(2, 4).model_dump(mode="json") | {"kept": kept, "group": group}
        with pytest.raises(DocumentError):
            SparsePacking.parse(json.dumps(document), "packing")
    with pytest.raises(DataError, match=r"got a tensor of shape \[3\]"):
        pack_sparse(np.zeros(3, dtype=np.int64), packing_of(2, 4))
    with pytest.raises(DataError, match="as int4, which holds -8 to 7"):
        pack_sparse(np.array([[9, 0, 0, 0]]), packing_of(2, 4))

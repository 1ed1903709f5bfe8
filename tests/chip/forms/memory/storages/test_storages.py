import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.forms.memory.storages.sparse_weights import sparse_weights

from photomask.chip.formats import IntFormat
from photomask.chip.forms.memory.bit_stream import StreamPacking, pack_stream
from photomask.chip.forms.memory.storages import (
    STORAGES,
    BitmapStorage,
    BlockStorage,
    NofMStorage,
    RunLengthStorage,
    dense_bits,
    smallest,
    stored_bits,
)
from photomask.chip.sparsity import Blocks, NofM
from photomask.chip.target import PRESETS
from photomask.errors import DataError, DocumentError

ASIC = PRESETS["asic"]
INT4 = IntFormat(bits=4, signed=True)
Case = tuple[np.ndarray, np.ndarray, IntFormat]


@given(sparse_weights(), st.sampled_from(sorted(STORAGES)))
def test_a_weight_reads_back_from_the_storage_that_fits_it(case: Case, kind: str):
    weight, zero, format = case
    storage = STORAGES[kind].fitted(weight, zero, format)
    if storage is None:
        return
    streams = storage.compress(weight, zero)
    formats = storage.formats(format, weight.shape)
    assert list(streams) == list(formats)
    for name, stream in streams.items():
        assert stream.size == 0 or formats[name].low <= stream.min() <= stream.max()
        assert stream.size == 0 or stream.max() <= formats[name].high
    assert np.array_equal(storage.restore(streams, weight.shape, zero), weight)
    bits = sum(stream.size * formats[name].bits for name, stream in streams.items())
    assert bits < weight.size * format.bits


@given(sparse_weights(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_a_weight_reads_back_from_any_blocks_and_any_runs(
    case: Case, outputs: int, inputs: int, run_bits: int
):
    weight, zero, _ = case
    for storage in (
        BlockStorage(blocks=Blocks(outputs=outputs, inputs=inputs)),
        RunLengthStorage(run_bits=run_bits),
        BitmapStorage(),
    ):
        streams = storage.compress(weight, zero)
        assert np.array_equal(storage.restore(streams, weight.shape, zero), weight)


@given(sparse_weights(), st.sampled_from([8, 24, 32, 64]))
def test_the_smallest_storage_takes_fewer_bits_than_the_image_and_than_the_others(
    case: Case, word_bits: int
):
    weight, zero, format = case
    target = ASIC.model_copy(update={"memory_word_bits": word_bits})

    def bits(storage) -> int:
        streams = storage.compress(weight, zero)
        found = sum(
            len(pack_stream(s, StreamPacking.of(storage.formats(format, weight.shape)[n], target)))
            for n, s in streams.items()
        )
        assert found * word_bits == stored_bits(storage, streams, format, weight.shape, target)
        return found * word_bits

    chosen = smallest(weight, zero, format, target, tuple(STORAGES))
    dense = dense_bits(format, weight.size, target)
    fewest = dense if chosen is None else bits(chosen)
    assert chosen is None or fewest < dense
    for kind in STORAGES.values():
        other = kind.fitted(weight, zero, format)
        assert other is None or bits(other) >= fewest


def two_of_four(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    weight = random.integers(1, 8, (outputs, inputs // 4, 4, 3, 3))
    ranks = random.random(weight.shape).argsort(axis=2).argsort(axis=2)
    return np.where(ranks < 2, weight, 0).reshape(outputs, inputs, 3, 3)


def test_two_of_four_of_four_bits_takes_at_most_seven_tenths_of_the_dense_image():
    weight, zero = two_of_four(16, 16), np.zeros(16, dtype=np.int64)
    storage = smallest(weight, zero, INT4, ASIC, ("n:m", "bitmap", "run-length", "blocks"))
    assert isinstance(storage, NofMStorage)
    assert storage.pattern == NofM(kept=2, group=4)
    stored = stored_bits(storage, storage.compress(weight, zero), INT4, weight.shape, ASIC)
    assert stored / dense_bits(INT4, weight.size, ASIC) <= 0.70


def test_what_may_be_chosen_is_chosen():
    weight, zero = two_of_four(16, 16), np.zeros(16, dtype=np.int64)
    for kinds, expected in [
        ((), None),
        (("blocks",), None),
        (("bitmap",), BitmapStorage()),
        (("bitmap", "n:m"), NofMStorage(pattern=NofM(kept=2, group=4))),
    ]:
        assert smallest(weight, zero, INT4, ASIC, kinds) == expected


def test_a_zero_that_the_format_cannot_hold_leaves_the_weight_dense():
    weight = np.full((4, 16), -8)
    assert smallest(weight, np.full(4, -8), INT4, ASIC, ("bitmap",)) == BitmapStorage()
    assert smallest(weight, np.full(4, -9), INT4, ASIC, ("bitmap",)) is None


@given(st.integers(2, 9), st.data())
def test_indices_number_the_sets_of_positions_from_zero_without_gaps(group: int, data):
    kept = data.draw(st.integers(1, group))
    storage = NofMStorage(pattern=NofM(kept=kept, group=group))
    sets = math.comb(group, kept)
    indices = np.arange(sets)
    streams = {"values": np.ones(sets * kept, dtype=np.int64), "indices": indices}
    weight = storage.restore(streams, (sets, group), np.zeros(sets, dtype=np.int64))
    assert ((weight != 0).sum(axis=1) == kept).all()
    assert len(np.unique(weight, axis=0)) == sets
    assert storage.compress(weight, np.zeros(sets, dtype=np.int64))["indices"].tolist() == [
        *range(sets)
    ]
    # The first set keeps the first positions, and a set is numbered before all that reach higher.
    highest = [max(np.flatnonzero(row)) for row in weight]
    assert highest == sorted(highest)


def test_two_of_four_decoded_by_hand():
    weight, zero = np.array([[0, 5, 0, -3, 7, 0, 0, 0]]), np.zeros(1, dtype=np.int64)
    storage = NofMStorage(pattern=NofM(kept=2, group=4))
    # Group 0 keeps 5 at position 1 and -3 at 3; group 1 keeps 7 at 0 and a zero at 1.
    # The sets (0,1), (0,2), (1,2), (0,3), (1,3), (2,3) are 0 to 5.
    streams = storage.compress(weight, zero)
    assert streams["values"].tolist() == [5, -3, 7, 0]
    assert streams["indices"].tolist() == [4, 0]


def test_every_storage_decoded_by_hand():
    weight = np.zeros((2, 2, 2), dtype=np.int64)
    weight[0, 1, 0] = 1
    weight[0, 0, 1] = 2
    weight[1, 1, 1] = 3
    zero = np.zeros(2, dtype=np.int64)
    # Rows are outputs, then kernel positions: 0 1 | 2 0 | 0 0 | 0 3.
    streams = NofMStorage(pattern=NofM(kept=1, group=2)).compress(weight, zero)
    assert streams["values"].tolist() == [1, 2, 0, 3]
    assert streams["indices"].tolist() == [1, 0, 0, 1]
    streams = BitmapStorage().compress(weight, zero)
    assert streams["bitmap"].tolist() == [0, 1, 1, 0, 0, 0, 0, 1]
    assert streams["values"].tolist() == [1, 2, 3]
    # Four zeros before the 3: an entry of 3 zeros and a zero value, then a run of 0.
    streams = RunLengthStorage(run_bits=2).compress(weight, zero)
    assert streams["runs"].tolist() == [1, 0, 3, 0]
    assert streams["values"].tolist() == [1, 2, 0, 3]
    # Blocks of 1 output and 2 inputs are the four rows; the third is empty.
    streams = BlockStorage(blocks=Blocks(outputs=1, inputs=2)).compress(weight, zero)
    assert streams["positions"].tolist() == [0, 1, 3]
    assert streams["values"].tolist() == [0, 1, 2, 0, 0, 3]


def test_a_group_with_one_weight_too_many_is_named():
    weight = two_of_four(4, 8)
    weight[2, 4:7, 1, 2] = 1
    weight[2, 7, 1, 2] = 0
    storage = NofMStorage(pattern=NofM(kept=2, group=4))
    with pytest.raises(
        DataError,
        match=r"output 2, kernel position \(1, 2\), group 1 \(inputs 4 to 7\) has 3 weights that "
        r"are not zero; 2:4 sparsity allows 2\. 1 of 72 groups",
    ):
        storage.compress(weight, np.zeros(4, dtype=np.int64))


@pytest.mark.parametrize(
    ("storage", "change", "message"),
    [
        ("n:m", {"indices": [4, 6]}, r"output 0, group 1 \(inputs 4 to 5\) has the index 6"),
        ("n:m", {"indices": [4, 5]}, "group 1 .* behind the last input channel"),
        ("n:m", {"indices": [4]}, "'indices' has 1 elements, expected 2"),
        ("n:m", {"values": [5, 3, 7]}, "'values' has 3 elements, expected 4"),
        ("bitmap", {"bitmap": [1, 1, 1, 1, 0, 0]}, "sets 4 bits, but .* has 3 values"),
        ("bitmap", {"bitmap": [1]}, "'bitmap' has 1 elements, expected 6"),
        ("run-length", {"runs": [1, 1, 2]}, "entry 2 of the stream 'runs' leads to weight 6 of"),
        ("run-length", {"values": [5]}, "'values' has 1 elements, expected 3"),
        ("blocks", {"positions": [1, 0]}, "element 1 of the stream 'positions' is 0; positions"),
        ("blocks", {"positions": [0, 2]}, "element 1 of the stream 'positions' is 2; positions"),
        ("blocks", {"values": [5]}, "'values' has 1 elements, expected 8"),
        ("blocks", {"values": [0, 5, 0, 3, 7, 0, 1, 0]}, "behind the last output or the last"),
    ],
)
def test_streams_of_no_such_weight_are_refused(storage: str, change: dict, message: str):
    weight, zero = np.array([[0, 5, 0, 3, 7, 0]]), np.zeros(1, dtype=np.int64)
    found = {
        "n:m": NofMStorage(pattern=NofM(kept=2, group=4)),
        "bitmap": BitmapStorage(),
        "run-length": RunLengthStorage(run_bits=2),
        "blocks": BlockStorage(blocks=Blocks(outputs=1, inputs=4)),
    }[storage]
    streams = found.compress(weight, zero)
    assert np.array_equal(found.restore(streams, weight.shape, zero), weight)
    changed = streams | {name: np.array(values) for name, values in change.items()}
    with pytest.raises(DataError, match=message):
        found.restore(changed, weight.shape, zero)


def test_impossible_storages_are_refused():
    for document in (
        {"kind": "n:m", "pattern": {"kept": 5, "group": 4}},
        {"kind": "n:m", "pattern": {"kept": 50, "group": 100}},
        {"kind": "run-length", "run_bits": 0},
        {"kind": "blocks", "blocks": {"outputs": 0, "inputs": 4}},
    ):
        with pytest.raises(DocumentError):
            STORAGES[document["kind"]].parse(json.dumps(document), "storage")
    with pytest.raises(DataError, match=r"got a tensor of shape \[3\]"):
        BitmapStorage().compress(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64))

"""Runs move every element once, from and to where it belongs; edges never share live words."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.chip.strategies import random_programs

from photomask.chip.forms.rtl.element_streams import OUTSIDE, runs_of, stream_between
from photomask.chip.forms.rtl.memory_map import (
    Place,
    place_edges,
    words_from_hex,
    words_to_hex,
)


def place(lanes: int, address: int, before: int, channels: int, inner: int) -> Place:
    return Place(
        memory="activations",
        address=address,
        channels=channels,
        positions=before * inner,
        inner=inner,
        lanes=lanes,
        lane_bits=8,
        signed=False,
    )


@given(
    lanes=st.integers(1, 6),
    source=st.tuples(st.integers(0, 9), *[st.integers(1, 6)] * 3),
    target=st.tuples(st.integers(0, 9), *[st.integers(1, 6)] * 3),
    seed=st.integers(0, 1 << 30),
    kind=st.sampled_from(["random", "in order", "backwards", "repeated", "padding"]),
)
def test_runs_bring_every_element_to_its_place(lanes, source, target, seed, kind):
    begin, end = place(lanes, *source), place(lanes, *target)
    available, wanted = begin.channels * begin.positions, end.channels * end.positions
    rng = np.random.default_rng(seed)
    elements = {
        "random": rng.integers(OUTSIDE, available, wanted),
        "in order": np.arange(wanted) % available,
        "backwards": (available - 1 - np.arange(wanted)) % available,
        "repeated": np.arange(wanted) // 3 % available,
        "padding": np.full(wanted, OUTSIDE),
    }[kind]
    memory = rng.integers(0, 256, (begin.address + begin.words, lanes))
    values = begin.values_of(memory[begin.address :], source[1:])
    result = np.full((end.address + end.words, lanes), -7)
    written = np.zeros_like(result)
    for run in runs_of(stream_between(begin, end, elements, 0), lanes):
        for step in range(run.count):
            word = run.source + step * run.source_step
            read = memory[word] if word >= 0 else np.full(lanes, -1)
            to = run.target + step * run.target_step
            chosen = slice(run.first_lane, run.last_lane + 1)
            result[to, chosen] = np.roll(read, run.rotation)[chosen]
            written[to, chosen] += 1
    moved = end.values_of(result[end.address :], target[1:]).reshape(-1)
    expected = np.where(elements == OUTSIDE, -1, values.reshape(-1)[np.maximum(elements, 0)])
    assert np.array_equal(moved, expected)
    counts = end.values_of(written[end.address :], target[1:])
    assert (counts == 1).all()
    assert written.sum() == wanted


def test_whole_words_in_order_are_one_run():
    begin, end = place(4, 3, 1, 8, 20), place(4, 50, 1, 8, 20)
    (run,) = runs_of(stream_between(begin, end, np.arange(160), 0), 4)
    assert (run.source, run.target, run.count) == (3, 50, 40)
    assert (run.source_step, run.target_step, run.rotation) == (1, 1, 0)


def words_taken(place: Place) -> set[tuple[str, int]]:
    return {(place.memory, place.address + word) for word in range(place.words)}


@given(random_programs(), st.sampled_from([1, 4, 6]))
def test_edges_that_live_together_share_no_word(program, lanes):
    memory = place_edges(program, lanes, 8, 32)
    places = memory.edges
    last_use = {name: n for n, step in enumerate(program.steps) for name in step.inputs}
    owner: dict[tuple[str, int], str] = {}
    makers = {step.output: step for step in program.steps}
    initial = [*program.inputs, *(n for n, s in makers.items() if s.operator.kind == "constant")]
    order = [(name, -1) for name in initial]
    order += [(s.output, n) for n, s in enumerate(program.steps) if s.output not in initial]
    for name, number in order:
        copies = [
            copy
            for (step, _), copy in memory.copies.items()
            if number >= 0 and step == program.steps[number].name
        ]
        for key in itertools.chain.from_iterable(words_taken(copy) for copy in copies):
            before = owner.pop(key, None)
            assert before is None or (
                before not in program.outputs and last_use.get(before, -1) < number
            )
        taken = words_taken(places[name])
        assert all(taken.isdisjoint(words_taken(copy)) for copy in copies)
        for key in taken:
            before = owner.get(key)
            if before is not None:
                assert before not in program.outputs
                assert last_use.get(before, -1) < number
            owner[key] = name


@given(
    st.integers(1, 5),
    st.integers(0, 9),
    st.sampled_from([3, 4, 8, 17, 32, 40]),
    st.booleans(),
    st.integers(0, 1 << 30),
)
def test_words_survive_their_text(lanes, count, bits, signed, seed):
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    words = np.random.default_rng(seed).integers(low, high, (count, lanes))
    lines = words_to_hex(words, bits)
    for line, word in zip(lines, words.tolist(), strict=True):
        mask = (1 << bits) - 1
        assert int(line, 16) == sum((v & mask) << (n * bits) for n, v in enumerate(word))
    assert np.array_equal(words_from_hex(lines, lanes, bits, signed), words)
    assert np.array_equal(
        words_from_hex([line.lstrip("0") or "0" for line in lines], lanes, bits, signed), words
    )

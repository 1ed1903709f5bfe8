from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chip.decoding.language_models import CACHE, MODELS, WORDS, llama, programs, texts
from torch import from_numpy, no_grad

from photomask.chip import CEngine, IntegerProgram, NumpyEngine, OnnxEngine, TorchEngine
from photomask.chip.decoding import Decoder
from photomask.errors import DataError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")


def in_parts(decoder: Decoder, tokens: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Returns the logits of a text that is fed piece by piece."""
    decoder.reset()
    logits, start = [], 0
    for size in [*sizes, tokens.shape[1]]:
        part = tokens[:, start : start + size]
        if part.size:
            logits.append(decoder.feed(part))
        start += size
    return np.concatenate(logits, axis=1)


@pytest.mark.parametrize("name", MODELS)
def test_decoding_token_by_token_gives_the_integers_of_one_run(name: str):
    one, many = (Decoder(program, engine=NumpyEngine) for program in programs(name, (1, 14)))
    tokens = texts(2, 14)
    assert np.array_equal(in_parts(one, tokens, [1] * 13), many.feed(tokens))
    for found, expected in zip(one._cache, many._cache, strict=True):
        assert np.array_equal(found[:, :, :14], expected[:, :, :14])


@cache
def torch_decoder(*lengths: int) -> Decoder:
    return Decoder(*programs("Llama", lengths), engine=TorchEngine)


@given(st.lists(st.integers(1, 6), max_size=6), st.integers(1, CACHE))
@settings(max_examples=10, deadline=None)
def test_any_chunks_give_the_same_integers(sizes: list[int], length: int):
    decoder = torch_decoder(1, 8)
    whole = torch_decoder(14)
    tokens = texts(2, length)
    expected = in_parts(whole, tokens, [])
    assert np.array_equal(in_parts(decoder, tokens, sizes), expected)
    assert decoder.length == length


@pytest.mark.parametrize("engine", [TorchEngine, OnnxEngine, CEngine], ids=lambda e: e.__name__)
def test_every_engine_gives_the_integers_of_the_oracle(engine: type):
    parts, tokens = programs("Llama", (8,)), texts(2, 11)
    expected = Decoder(*parts, engine=NumpyEngine).feed(tokens)
    assert np.array_equal(Decoder(*parts, engine=engine).feed(tokens), expected)


def test_it_writes_what_the_float_model_writes():
    prompt = texts(4, 6)
    written = Decoder(*programs("Llama", (1, 8))).generate(prompt, 4)
    with no_grad():
        expected = llama().generate(from_numpy(prompt), max_new_tokens=4, do_sample=False)
    agreeing = (written == expected[:, 6:].numpy()).mean()
    assert agreeing > 0.5  # random weights give logits that are nearly equal


def test_generating_starts_with_an_empty_cache():
    decoder, prompt = Decoder(*programs("Llama", (1, 8))), texts(1, 6)
    first = decoder.generate(prompt, 4)
    assert decoder.length == 9
    assert np.array_equal(decoder.generate(prompt, 4), first)


def test_keys_and_values_have_the_scale_of_their_cache():
    for program in programs("Llama", (1, 8)):
        for state, new in zip(program.inputs[3:], program.outputs[1:], strict=True):
            given, made = program.edges[state], program.edges[new]
            assert (given.scale, given.zero_point, given.format) == (
                made.scale,
                made.zero_point,
                made.format,
            )


def refused(tokens: object, message: str, *, count: int = 0) -> None:
    decoder = Decoder(programs("Llama", (1, 8))[1])
    with pytest.raises(DataError, match=message):
        decoder.generate(tokens, count) if count else decoder.feed(tokens)  # type: ignore[arg-type]
    assert decoder.length == 0


def test_what_cannot_be_run_is_refused():
    refused(texts(1, CACHE + 1), f"17 tokens, but input 'cached_0' holds {CACHE}")
    refused(texts(1, 10), f"18 tokens, but input 'cached_0' holds {CACHE}", count=9)
    refused(np.full((1, 3), WORDS), f"input 'tokens' has rows 0 to {WORDS - 1}")
    refused(np.full((1, 3), -1), "rows 0 to")
    refused(np.zeros((1, 3)), "int64 array")
    refused(np.zeros(3, dtype=np.int64), "int64 array")
    refused(np.zeros((1, 0), dtype=np.int64), "at least one token")
    refused([[1, 2]], "int64 array")


def test_another_batch_than_the_cached_one_is_refused():
    decoder = Decoder(programs("Llama", (1, 8))[1])
    decoder.feed(texts(2, 3))
    with pytest.raises(DataError, match="1 texts, but 2 are cached"):
        decoder.feed(texts(1, 3))


def changed(program: IntegerProgram, name: str, **changes: object) -> IntegerProgram:
    """Returns a program one edge of which means something else."""
    edges = [
        edge.model_copy(update=changes) if edge.name == name else edge
        for edge in program.edges.values()
    ]
    return IntegerProgram(
        target=program.target,
        inputs=program.inputs,
        outputs=program.outputs,
        edges=edges,
        steps=program.steps,
        tensors=program.tensors,
        formats=program.formats,
        provenance=program.provenance,
    )


def test_programs_that_do_not_go_together_are_refused():
    one, many = programs("Llama", (1, 8))
    with pytest.raises(UsageError, match="at least one"):
        Decoder()
    with pytest.raises(UsageError, match="two programs have chunks of 8"):
        Decoder(many, many)
    with pytest.raises(UsageError, match="differ in their logits"):
        Decoder(changed(one, one.outputs[0], scale=(0.5,)), many)
    with pytest.raises(UsageError, match="cannot be cached in 'cached_1'"):
        Decoder(changed(one, "cached_1", scale=(0.5,)))
    with pytest.raises(UsageError, match="differ"):
        Decoder(one, programs("GPT-2", (1, 14))[1])


def test_a_program_that_is_no_language_model_is_refused():
    program = programs("Llama", (1, 8))[0]
    other = changed(program, program.inputs[0])
    other.outputs = other.outputs[:1]
    with pytest.raises(UsageError, match="a chunk of a language model takes"):
        Decoder(other)

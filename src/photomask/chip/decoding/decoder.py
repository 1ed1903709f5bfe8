"""Greedy decoding with a cache of integer keys and values."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from photomask.chip.engines import TorchEngine
from photomask.chip.program import Edge, IntegerProgram
from photomask.errors import DataError, UsageError

TOKENS, POSITIONS, MASK = range(3)
"""Places among a program's inputs; behind them are the cached keys and values."""


class Engine(Protocol):
    """Runs one program."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the output edges."""
        ...


class Decoder:
    """Runs a language model in integers, chunk by chunk, and keeps the cache.

    The programs are those of one `CachedModel` with one calibration (`prepare`, `prepare_like`),
    that differ in how many tokens a chunk has: one for prompts, one for single tokens. A chunk's
    keys and values go into the cache as they are, so that any way of cutting a text into chunks
    gives the same integers.

    Attributes:
        capacity: how many tokens the cache holds.
        length: how many it holds now.
    """

    def __init__(
        self,
        *programs: IntegerProgram,
        engine: Callable[[IntegerProgram], Engine] = TorchEngine,
    ):
        """Makes an engine for each program.

        Args:
            programs: in any order; their chunks must differ in length.
            engine: makes an engine: `NumpyEngine`, `TorchEngine`, `CEngine`, `OnnxEngine`.

        Raises:
            UsageError: no program, one that is no chunk of a language model, or programs that do
                not go together.
        """
        if not programs:
            raise UsageError("a decoder needs at least one program")
        self._chunks = [_Chunk(program) for program in programs]
        self._chunks.sort(key=lambda chunk: chunk.tokens)
        for chunk in self._chunks[1:]:
            _check_pair(self._chunks[0], chunk)
        self._engines = {chunk.tokens: engine(chunk.program) for chunk in self._chunks}
        first = self._chunks[0]
        self.capacity = min(first.capacity, first.positions)
        self._states = [first.program.edges[name] for name in first.states]
        self._cache: list[np.ndarray] = []
        self.length = 0

    def reset(self) -> None:
        """Empties the cache."""
        self._cache, self.length = [], 0

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        """Runs tokens behind those that are cached.

        Args:
            tokens: int64 [batch, count].

        Returns:
            The codes of the logits behind each of them, int64 [batch, count, vocabulary].

        Raises:
            DataError: not int64 [batch, count], another batch than what is cached, tokens outside
                the vocabulary, or more than the cache has room for.
        """
        self._check(tokens)
        if not self._cache:
            self._cache = [
                np.full((len(tokens), *edge.shape[1:]), edge.zero_point, dtype=np.int64)
                for edge in self._states
            ]
        logits, done = [], 0
        while done < tokens.shape[1]:
            left = tokens.shape[1] - done
            enough = [chunk for chunk in self._chunks if chunk.tokens >= left]
            chunk = enough[0] if enough else self._chunks[-1]
            part = tokens[:, done : done + chunk.tokens]
            logits.append(self._run(chunk, part))
            done += part.shape[1]
        return np.concatenate(logits, axis=1)

    def generate(self, prompt: np.ndarray, count: int) -> np.ndarray:
        """Continues texts of one length greedily: the largest logit wins, of equal ones the first.

        Starts with an empty cache.

        Args:
            prompt: int64 [batch, length].
            count: how many tokens to add.

        Returns:
            The tokens that were added, int64 [batch, count].

        Raises:
            UsageError: fewer than one token to add.
            DataError: as for `feed`; prompt and new tokens must fit the cache together.
        """
        if count < 1:
            raise UsageError(f"{count} tokens to generate; at least 1 is possible")
        self.reset()
        self._check(prompt, more=count - 1)
        found = [self.feed(prompt)[:, -1].argmax(axis=-1)]
        for _ in range(count - 1):
            found.append(self.feed(found[-1][:, None])[:, -1].argmax(axis=-1))
        return np.stack(found, axis=1)

    def _run(self, chunk: "_Chunk", tokens: np.ndarray) -> np.ndarray:
        """Runs one chunk, of which `tokens` may be only the beginning, and caches what is new."""
        batch, count = tokens.shape
        spare = chunk.tokens - count
        positions = np.minimum(self.length + np.arange(chunk.tokens), chunk.positions - 1)
        mask = np.zeros((batch, 1, chunk.tokens, chunk.capacity + chunk.tokens), dtype=np.int64)
        mask[..., : self.length] = 1
        mask[..., chunk.capacity :] = np.tril(np.ones((chunk.tokens, chunk.tokens), dtype=np.int64))
        values = (
            np.pad(tokens, ((0, 0), (0, spare))),
            np.repeat(positions[None].astype(np.int64), batch, axis=0),
            mask,
            *self._cache,
        )
        inputs = dict(zip(chunk.program.inputs, values, strict=True))
        logits, *new = _outputs(self._engines[chunk.tokens], chunk.program, inputs)
        for cached, state in zip(self._cache, new, strict=True):
            cached[:, :, self.length : self.length + count] = state[:, :, :count]
        self.length += count
        return logits[:, :count]

    def _check(self, tokens: np.ndarray, more: int = 0) -> None:
        """Refuses tokens that cannot be run, with `more` behind them."""
        if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int64 or tokens.ndim != 2:
            found = f"{tokens.dtype} {list(tokens.shape)}" if hasattr(tokens, "dtype") else tokens
            raise DataError(f"tokens must be an int64 array [batch, count], got {found}")
        if not tokens.size:
            raise DataError(f"no tokens: shape {list(tokens.shape)}")
        edge = self._chunks[0].edge(TOKENS)
        if tokens.min() < edge.low or tokens.max() > edge.high:
            raise DataError(
                f"tokens {tokens.min()} to {tokens.max()}, but the table behind input "
                f"{edge.name!r} has rows {edge.low} to {edge.high}"
            )
        if self._cache and len(tokens) != len(self._cache[0]):
            raise DataError(
                f"{len(tokens)} texts behind {len(self._cache[0])} that are cached; reset() forgets"
            )
        wanted = self.length + tokens.shape[1] + more
        if wanted > self.capacity:
            chunk = self._chunks[0]
            raise DataError(
                f"{wanted} tokens; input {chunk.states[0]!r} holds {chunk.capacity} and the table "
                f"behind {chunk.edge(POSITIONS).name!r} has {chunk.positions} positions"
            )


class _Chunk:
    """A program and what its inputs say about the model."""

    def __init__(self, program: IntegerProgram):
        self.program = program
        self.states = program.inputs[MASK + 1 :]
        self.new = program.outputs[1:]
        if not self.states or len(self.states) != len(self.new):
            raise UsageError(
                f"the program has inputs {list(program.inputs)} and {len(program.outputs)} "
                "outputs; a chunk of a language model takes tokens, positions, a mask and cached "
                "keys and values, and returns logits and as many new keys and values"
            )
        self.tokens = self.edge(TOKENS).shape[-1]
        self.positions = self.edge(POSITIONS).high + 1
        self.capacity = program.edges[self.states[0]].shape[-2]
        heads = [program.edges[name].shape for name in self.states]
        expected: dict[str, tuple[int, ...]] = {
            program.inputs[TOKENS]: (1, self.tokens),
            program.inputs[POSITIONS]: (1, self.tokens),
            program.inputs[MASK]: (1, 1, self.tokens, self.capacity + self.tokens),
        }
        for state, new, shape in zip(self.states, self.new, heads, strict=True):
            expected[state] = (*shape[:2], self.capacity, *shape[-1:])
            expected[new] = (*shape[:2], self.tokens, *shape[-1:])
        for name, shape in expected.items():
            if program.edges[name].shape != shape:
                raise UsageError(
                    f"{name!r} has shape {program.edges[name].shape}, a chunk of {self.tokens} "
                    f"tokens behind a cache of {self.capacity} needs {shape}"
                )
        for state, new in zip(self.states, self.new, strict=True):
            if _meaning(program.edges[state]) != _meaning(program.edges[new]):
                raise UsageError(
                    f"{new!r} cannot be kept in {state!r}: {_meaning(program.edges[new])}, not "
                    f"{_meaning(program.edges[state])}; prepare the model with its states"
                )

    def edge(self, at: int) -> Edge:
        """Returns an input."""
        return self.program.edges[self.program.inputs[at]]


def _meaning(edge: Edge) -> str:
    return f"{edge.format}, scale {edge.scale}, zero point {edge.zero_point}"


def _check_pair(first: _Chunk, second: _Chunk) -> None:
    """Refuses programs whose caches or logits mean different things, or whose chunks are equal."""
    if first.tokens == second.tokens:
        raise UsageError(f"two programs with chunks of {first.tokens} tokens")
    pairs = [("cache", first.states, second.states), ("output", first.new, second.new)]
    pairs.append(("logits", first.program.outputs[:1], second.program.outputs[:1]))
    for what, mine, others in pairs:
        left = [_meaning(first.program.edges[name]) for name in mine]
        right = [_meaning(second.program.edges[name]) for name in others]
        if left != right:
            raise UsageError(
                f"the programs differ in their {what}: {left[0]} and {right[0]}; make the second "
                "by prepare_like from the calibration of the first"
            )
    sizes = [
        (chunk.capacity, chunk.positions, chunk.edge(TOKENS).high) for chunk in (first, second)
    ]
    if sizes[0] != sizes[1]:
        raise UsageError(
            "the programs differ in (cache length, positions, last token): "
            f"{sizes[0]} and {sizes[1]}"
        )


def _outputs(
    engine: Engine, program: IntegerProgram, inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns the outputs in order; the torch engine takes tensors, all others arrays."""
    if isinstance(engine, TorchEngine):
        tensors = {name: torch.from_numpy(codes) for name, codes in inputs.items()}
        found = {name: codes.cpu().numpy() for name, codes in engine.run(tensors).items()}
        return [found[name] for name in program.outputs]
    result = engine.run(inputs)
    return [result[name] for name in program.outputs]

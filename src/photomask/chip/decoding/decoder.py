"""Decodes greedily with a cache of integer keys and values."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch

from photomask.chip.engines import TorchEngine
from photomask.chip.program import Edge, IntegerProgram
from photomask.errors import DataError, UsageError

TOKENS, POSITIONS, MASK = range(3)
"""The indices of these inputs among a program's inputs; cached keys and values come after them."""


class Engine(Protocol):
    """An engine, which runs one program."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the codes of the output edges by name."""
        ...


class Decoder:
    """Runs a language model in integers, chunk by chunk, with a cache of keys and values.

    The programs come from one `CachedModel` with one calibration (`prepare`, `prepare_like`). They
    differ in the number of tokens of a chunk: one is for prompts, another for single tokens. The
    integer keys and values of a chunk are cached unchanged, so that every division of a text into
    chunks gives the same integers.

    Attributes:
        capacity: the number of tokens that the cache can hold.
        length: the number of tokens that the cache holds now.
    """

    def __init__(
        self,
        *programs: IntegerProgram,
        engine: Callable[[IntegerProgram], Engine] = TorchEngine,
    ):
        """Makes an engine for each program.

        Args:
            programs: the programs in any order; their chunks must differ in length.
            engine: a function or class that makes the engine of a program: `NumpyEngine`,
                `TorchEngine`, `CEngine` or `OnnxEngine`.

        Raises:
            UsageError: there is no program, a program is no chunk of a language model, or the
                programs do not belong together.
        """
        if not programs:
            raise UsageError("a decoder needs at least one program, found none")
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
        """Runs tokens after those that are cached, and adds them to the cache.

        Args:
            tokens: the tokens, int64 [batch, count].

        Returns:
            The codes of the logits after each token, int64 [batch, count, vocabulary].

        Raises:
            DataError: the tokens are not int64 [batch, count], their batch differs from that of the
                cache, a token is outside the vocabulary, or the cache has too little room.
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
        """Returns a greedy continuation of texts of one length, starting with an empty cache.

        The token with the largest logit is chosen, or the first of equal ones.

        Args:
            prompt: the tokens of the texts, int64 [batch, length].
            count: the number of tokens to add.

        Returns:
            The tokens that were added, int64 [batch, count].

        Raises:
            UsageError: `count` is below 1.
            DataError: `feed` would refuse the prompt, or the cache has too little room for the
                prompt and the new tokens.
        """
        if count < 1:
            raise UsageError(f"count must be at least 1, found {count}")
        self.reset()
        self._check(prompt, more=count - 1)
        found = [self.feed(prompt)[:, -1].argmax(axis=-1)]
        for _ in range(count - 1):
            found.append(self.feed(found[-1][:, None])[:, -1].argmax(axis=-1))
        return np.stack(found, axis=1)

    def _run(self, chunk: "_Chunk", tokens: np.ndarray) -> np.ndarray:
        """Runs one chunk, padded if `tokens` are fewer, and adds its keys and values to the cache.

        Returns:
            The codes of the logits of `tokens`.
        """
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
        """Refuses tokens that cannot be run, or that leave no room for `more` tokens."""
        if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int64 or tokens.ndim != 2:
            found = f"{tokens.dtype} {list(tokens.shape)}" if hasattr(tokens, "dtype") else tokens
            raise DataError(f"tokens must be an int64 array [batch, count], got {found}")
        if not tokens.size:
            raise DataError(
                f"tokens must hold at least one token, found the shape {list(tokens.shape)}"
            )
        edge = self._chunks[0].edge(TOKENS)
        if tokens.min() < edge.low or tokens.max() > edge.high:
            raise DataError(
                f"the tokens go from {tokens.min()} to {tokens.max()}, but the table behind input "
                f"{edge.name!r} has rows {edge.low} to {edge.high}"
            )
        if self._cache and len(tokens) != len(self._cache[0]):
            raise DataError(
                f"the batch has {len(tokens)} texts, but {len(self._cache[0])} are cached; call "
                "reset() to start new texts"
            )
        wanted = self.length + tokens.shape[1] + more
        if wanted > self.capacity:
            chunk = self._chunks[0]
            raise DataError(
                f"the cache would need {wanted} tokens, but input {chunk.states[0]!r} holds "
                f"{chunk.capacity}, and the table behind {chunk.edge(POSITIONS).name!r} has "
                f"{chunk.positions} positions; use shorter texts, or a model with a longer cache"
            )


class _Chunk:
    """A program with the lengths that follow from the shapes of its inputs."""

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
                    f"{name!r} has shape {program.edges[name].shape}, but a chunk of {self.tokens} "
                    f"tokens with a cache of {self.capacity} needs {shape}; convert a CachedModel"
                )
        for state, new in zip(self.states, self.new, strict=True):
            if _meaning(program.edges[state]) != _meaning(program.edges[new]):
                raise UsageError(
                    f"{new!r} cannot be cached in {state!r}, because it has "
                    f"{_meaning(program.edges[new])} and the cache "
                    f"{_meaning(program.edges[state])}; prepare the model with its states"
                )

    def edge(self, at: int) -> Edge:
        """Returns the edge of an input."""
        return self.program.edges[self.program.inputs[at]]


def _meaning(edge: Edge) -> str:
    return f"{edge.format}, scale {edge.scale}, zero point {edge.zero_point}"


def _check_pair(first: _Chunk, second: _Chunk) -> None:
    """Refuses programs with different scales of cache or logits, or with equal chunk lengths."""
    if first.tokens == second.tokens:
        raise UsageError(
            f"two programs have chunks of {first.tokens} tokens; their chunks must differ in length"
        )
    pairs = [("cache", first.states, second.states), ("output", first.new, second.new)]
    pairs.append(("logits", first.program.outputs[:1], second.program.outputs[:1]))
    for what, mine, others in pairs:
        left = [_meaning(first.program.edges[name]) for name in mine]
        right = [_meaning(second.program.edges[name]) for name in others]
        if left != right:
            raise UsageError(
                f"the programs differ in their {what}: one has {left[0]}, another {right[0]}; "
                "make the second by prepare_like from the calibration of the first"
            )
    sizes = [
        (chunk.capacity, chunk.positions, chunk.edge(TOKENS).high) for chunk in (first, second)
    ]
    if sizes[0] != sizes[1]:
        raise UsageError(
            "the programs differ in (cache length, positions, last token), which are "
            f"{sizes[0]} and {sizes[1]}; convert them from one model with one cache length"
        )


def _outputs(
    engine: Engine, program: IntegerProgram, inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Returns a program's outputs in order; only the torch engine takes tensors."""
    if isinstance(engine, TorchEngine):
        tensors = {name: torch.from_numpy(codes) for name, codes in inputs.items()}
        found = {name: codes.cpu().numpy() for name, codes in engine.run(tensors).items()}
        return [found[name] for name in program.outputs]
    result = engine.run(inputs)
    return [result[name] for name in program.outputs]

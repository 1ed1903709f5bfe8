"""How long until the first token of a prompt with many images, the whole prefill counted?

Qwen2.5-VL-7B's text model with random weights, bfloat16, through transformers: embedding, layers
that fill a cache, final norm, and the head on the last token. The vision tower is not measured:
image features and rotary positions are there before, for every contender alike. Prompts are those
of `prefill_attention.py`: images of 1,296 tokens, text between them.

Dense attention by cuDNN, by FlashAttention-4, and plans that leave a share of the heads dense take
turns. Nothing is timed before their logits agree on a short prompt. One more pass tells where the
time goes. `--tokens 307200` fits the time limit alone, with one plan.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ours import RedGateError
from photomask.attention import HeadPlan, Pattern
from prefill_contenders import (
    EFFECT_FACTOR,
    LARGEST_NOISE,
    NOISE_FACTOR,
    PLANS,
    Contender,
    dense_contender,
    distance,
    in_float32,
    peer_contender,
    plan_contender,
    require_dense,
    require_near,
    spread,
)
from random_qwen import SCALES, LongPrompt, Scale, long_prompt, random_model
from rows import FOLDER, Results, Subject
from where_time_goes import parts_of

WHAT = "time_to_first_token"
LONG = 200_000
"""Tokens, from which on one plan is timed, and two repetitions are enough."""
LONG_PLANS = (30,)


@dataclass
class Turn:
    """What one contender has shown at one length."""

    contender: Contender
    passes: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    peak_gib: float = 0.0


class Deadline:
    """Says whether another round of passes ends in time, judging by the last."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes
        self._seconds, self._tokens = 0.0, 1

    def allows(self, tokens: int) -> bool:
        """Attention grows by the square of the tokens, all else slower."""
        growth = (tokens / self._tokens) ** 2
        return time.monotonic() + self._seconds * growth < self._end

    def learn(self, tokens: int, seconds: float) -> None:
        """Remembers how long a round took."""
        self._tokens, self._seconds = tokens, seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Gates, then times every length; the exit status is 1 if a gate is red."""
    arguments = parse(argv)
    results = Results(WHAT, arguments.results)
    cuda = arguments.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        results.skipped(Subject(WHAT, "photomask", "all"), "needs a CUDA device")
        return 0
    deadline = Deadline(arguments.minutes)
    scale = SCALES[arguments.scale]
    model = random_model(scale, arguments.layers or scale.layers, arguments.device)
    bench = Bench(results, model, scale)
    plans = arguments.plans or list(PLANS)
    try:
        contenders = bench.contenders(plans)
        for tokens in arguments.tokens or scale.tokens:
            long = tokens >= LONG
            names = LONG_PLANS if long and not arguments.plans else plans
            own = [each for number, each in contenders if number in (None, *names)]
            repetitions = arguments.repetitions or (2 if long else 3)
            bench.measure(own, tokens, repetitions, deadline)
    except RedGateError as error:
        results.skipped(bench.subject("photomask", "all"), f"red gate: {error}")
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="*", type=int, help="lengths of prompts")
    parser.add_argument("--plans", nargs="*", type=int, choices=list(PLANS), help="percent dense")
    parser.add_argument("--repetitions", type=int, help="timed passes of each contender")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, help="2 or more; a plan shows behind the first")
    parser.add_argument("--scale", choices=list(SCALES), default="7b", help="tiny to try it out")
    parser.add_argument("--minutes", type=float, default=8, help="after which no pass is begun")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the rows")
    return parser.parse_args(argv)


class Bench:
    """Gates contenders, times them and writes the rows."""

    def __init__(self, results: Results, model: Any, scale: Scale):
        self._results = results
        self._model = model
        self._scale = scale
        self._cuda = model.device.type == "cuda"
        self._device = torch.cuda.get_device_name() if self._cuda else None
        layers = model.config.text_config.num_hidden_layers
        self._note = f"{layers} layers, bfloat16, batch 1"

    def subject(self, name: str, network: str, package: str = "photomask") -> Subject:
        """Returns what a row is about."""
        return Subject(WHAT, name, network, package, self._device)

    def contenders(self, plans: Sequence[int]) -> list[tuple[int | None, Contender]]:
        """Returns who takes part, plans with their percentage, after comparing their logits.

        Each is compared with attention in float32 and masks written out, and may be wrong by no
        more than twice what rounding does to dense attention.

        Raises:
            RedGateError: one is.
        """
        model, prompt = self._model, long_prompt(self._scale, self._scale.gate_tokens, self._model)
        everything = HeadPlan.uniform(model, Pattern.DENSE)
        exact = in_float32(model, everything, prompt)
        dense = dense_contender(model)
        require_dense(model, dense, prompt)
        noise = require_near(dense.name, dense.prefill(prompt), exact, LARGEST_NOISE)
        self._gate(dense, prompt, noise, "beside attention in float32")
        found: list[tuple[int | None, Contender]] = [(None, dense)]
        peer = self._peer(prompt, exact, NOISE_FACTOR * noise)
        if peer is not None:
            found.append((None, peer))
        for percent in plans:
            plan = spread(everything, PLANS[percent])
            contender = plan_contender(model, plan, f"{percent} % dense")
            expected = in_float32(model, plan, prompt)
            effect = distance(expected, exact)
            limit = min(NOISE_FACTOR * noise, effect / EFFECT_FACTOR)
            error = require_near(contender.name, contender.prefill(prompt), expected, limit)
            note = (
                f"beside masks written out, in float32; the plan moves the logits by {effect:.2g}"
            )
            self._gate(contender, prompt, error, note)
            found.append((percent, contender))
        return found

    def _peer(self, prompt: LongPrompt, exact: Tensor, limit: float) -> Contender | None:
        """Returns FlashAttention-4, or writes a row that says why not."""
        try:
            peer = peer_contender(self._model)
            error = require_near(peer.name, peer.prefill(prompt), exact, limit)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the row says how
            subject = self.subject("FlashAttention-4 dense", "all", "flash-attn-4")
            self._results.skipped(subject, f"{type(error).__name__}: {error}")
            return None
        self._gate(peer, prompt, error, "beside attention in float32")
        return peer

    def _gate(self, contender: Contender, prompt: LongPrompt, error: float, note: str) -> None:
        subject = self.subject(contender.name, f"{prompt.tokens} tokens", contender.package)
        self._results.number(subject, "error of the logits", error, "ratio", note=note)

    def measure(
        self, contenders: Sequence[Contender], tokens: int, repetitions: int, deadline: Deadline
    ) -> None:
        """Lets contenders take turns on one prompt: a warm-up, timed passes, one that is marked."""
        torch.cuda.empty_cache()
        prompt = long_prompt(self._scale, tokens, self._model)
        turns = [Turn(contender) for contender in contenders]
        done = 0
        for number in range(repetitions + 2):
            if not turns or not deadline.allows(tokens):
                break
            started = time.monotonic()
            turns = [turn for turn in turns if self._take(turn, prompt, number == 2)]
            deadline.learn(tokens, time.monotonic() - started)
            done += 1
        if turns and done < repetitions + 2:
            reason = f"no time left after {done} of {repetitions + 2} rounds"
            self._results.skipped(self.subject("all", f"{tokens} tokens"), reason)
        self._write(turns, tokens)

    def _take(self, turn: Turn, prompt: LongPrompt, marked: bool) -> bool:
        """Runs one pass; returns whether it ran, else there is a row that says why not."""
        try:
            if marked:
                turn.parts = parts_of(turn.contender, prompt)
            else:
                turn.passes.append(self._pass(turn, prompt))
            return True
        except RedGateError:
            raise
        except torch.cuda.OutOfMemoryError as error:
            reason = f"out of memory; {self._needed(prompt.tokens)}; {error}"
        except Exception as error:  # noqa: BLE001 - the row says what failed, the others go on
            reason = f"{type(error).__name__}: {error}"
        contender = turn.contender
        subject = self.subject(contender.name, f"{prompt.tokens} tokens", contender.package)
        self._results.skipped(subject, reason)
        gc.collect()
        torch.cuda.empty_cache()
        return False

    def _pass(self, turn: Turn, prompt: LongPrompt) -> float:
        """Returns the milliseconds until the first token is known."""
        gc.collect()
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        int(turn.contender.prefill(prompt).argmax())
        elapsed = 1000 * (time.perf_counter() - started)
        if self._cuda:
            turn.peak_gib = torch.cuda.max_memory_allocated() / 2**30
        return elapsed

    def _needed(self, tokens: int) -> str:
        """Says what a pass holds at once, at its fullest."""
        text = self._model.config.text_config
        head = text.hidden_size // text.num_attention_heads
        cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head * tokens
        parts = {
            "weights": sum(each.numel() for each in self._model.parameters()),
            "cache": cache,
            "MLP": 3 * text.intermediate_size * tokens,
            "hidden states": 5 * text.hidden_size * tokens,
        }
        listed = ", ".join(f"{name} {2 * each / 2**30:.1f}" for name, each in parts.items())
        return f"about {2 * sum(parts.values()) / 2**30:.0f} GiB needed ({listed})"

    def _write(self, turns: Sequence[Turn], tokens: int) -> None:
        """Writes the rows of one length; the first pass of each contender was a warm-up."""
        dense = [turn for turn in turns if turn.contender.package != "photomask"]
        for turn in turns:
            contender, times = turn.contender, turn.passes[1:]
            subject = self.subject(contender.name, f"{tokens} tokens", contender.package)
            if times:
                every = ", ".join(f"{each:.1f}" for each in times)
                note = f"{self._note}; all: {every}"
                self._results.samples(subject, "time to first token", times, "ms", note=note)
            for other in dense if times else ():
                if other is not turn and other.passes[1:]:
                    median = statistics.median(other.passes[1:])
                    ratios = [median / each for each in times]
                    name = f"speed over {other.contender.name}"
                    self._results.samples(subject, name, ratios, "ratio", note=self._note)
            if turn.peak_gib:
                self._results.number(subject, "peak memory", turn.peak_gib, "GiB", note=self._note)
            for part, spent in turn.parts.items():
                self._results.number(subject, part, spent, "ms", note="one marked pass")


if __name__ == "__main__":
    sys.exit(main())

"""How fast is one layer of sparse prefill on a GPU, beside dense kernels and FlexAttention?

One layer in bfloat16, prompts of images with 40 tokens of text between them, and plans that leave
a share of the heads dense. Nothing of ours is timed before sampled rows of every head equal
attention in float32 with the mask written out; the error of every kernel is a row. All calls of a
length are timed in turn. A peer that is missing or fails becomes a row that says so.

The time of a dense kernel depends on the length alone. Times its density, the share of the causal
pairs that a plan sees, it is what that kernel would need if it lost nothing to sparsity; over our
time it is our share of the ideal.
"""

import argparse
import dataclasses
import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from photomask.attention.patterns import Pattern
from photomask.attention.schedule import Schedule, build_schedule
from prefill.clock import Deadline, time_together
from prefill.gate import LARGEST_ERROR, Gate, run_poisoned
from prefill.peers import DENSE, FLEX, Call, make_flex, make_ours, make_sparse_alone
from prefill.points import MAIN_IMAGE
from prefill.setting import (
    MEASURED_PERCENT,
    SHAPES,
    Layer,
    Plan,
    Prompt,
    Shape,
    make_layer,
    make_plan,
    make_prompt,
)
from rows import FOLDER, Results, Subject

WHAT = "prefill_attention"
TOKENS, IMAGE = (36864, 73728, 131072, 307200), MAIN_IMAGE
SWEPT_TOKENS, SWEPT_IMAGES = (36864, 131072), (256, 2500)
"""Lengths at which, unless asked otherwise, FlexAttention and other images are measured."""
PERCENTS = (0, 10, 30, 50, 100)
SLOW_PEERS, SLOW_TOKENS = ("fa2", "triton"), 131072
"""Peers that, unless asked for by name, are left out beyond a length to save time."""
CAUSAL = "causal, the ideal rate of a dense kernel: it does not know images seen in both directions"


@dataclass(frozen=True)
class Entry:
    """Something that is timed.

    Attributes:
        subject: what its rows are about.
        call: what is timed.
        pairs: visible pairs that it computes; None if it computes no attention.
        note: in the row of its time.
        density: of a plan of ours, else None.
    """

    subject: Subject
    call: Callable[[], object]
    pairs: int | None
    note: str = ""
    density: float | None = None


def main() -> int:
    """Measures all that is asked for; the exit status is 1 if a gate is red."""
    arguments = parse(sys.argv[1:])
    results = Results(WHAT, arguments.results)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        results.skipped(Subject(WHAT, "photomask", "all"), "needs a CUDA device")
        return 0
    measurement = Measurement(results, arguments)
    for name in arguments.shapes:
        for tokens in arguments.tokens or TOKENS:
            measurement.attempt(SHAPES[name], tokens, measurement.compare)
        if flex_is_wanted(arguments, SHAPES[name]):
            for tokens in arguments.tokens or SWEPT_TOKENS:
                measurement.attempt(SHAPES[name], tokens, measurement.compare_flex)
    return int(measurement.red)


def parse(options: Sequence[str]) -> argparse.Namespace:
    """Reads the options; what is not said is None, and depends on the length."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", nargs="+", type=int)
    parser.add_argument("--images", nargs="+", type=int, help="tokens of an image")
    parser.add_argument("--plans", nargs="+", type=int, default=PERCENTS, help="%% of heads dense")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--peers", nargs="*", choices=[*DENSE, *FLEX])
    parser.add_argument("--milliseconds", type=float, default=300, help="to repeat a call for")
    parser.add_argument("--minutes", type=float, help="after which nothing new is begun")
    parser.add_argument("--quick", action="store_true", help="the measured setting alone")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--results", type=Path, default=FOLDER)
    arguments = parser.parse_args(options)
    if arguments.quick:
        arguments.tokens = arguments.tokens or list(SWEPT_TOKENS)
        arguments.images = arguments.images or [IMAGE]
        arguments.plans = [MEASURED_PERCENT]
        arguments.shapes = list(SHAPES)[:1]
        arguments.peers = ["fa4", "cudnn"] if arguments.peers is None else arguments.peers
    return arguments


def images_wanted(arguments: argparse.Namespace, tokens: int) -> list[int]:
    """Returns the sizes of images to measure at a length."""
    if arguments.images is not None:
        return arguments.images
    return [IMAGE, *(SWEPT_IMAGES if tokens in SWEPT_TOKENS else ())]


def plans_wanted(arguments: argparse.Namespace, image_tokens: int) -> list[int]:
    """Returns the plans to measure on images of a size: mostly dense ones hardly depend on it."""
    everything = arguments.images is not None or image_tokens == IMAGE
    return [plan for plan in arguments.plans if everything or plan <= MEASURED_PERCENT]


def peers_wanted(arguments: argparse.Namespace, tokens: int) -> list[str]:
    """Returns the dense peers to measure at a length."""
    if arguments.peers is not None:
        return [key for key in arguments.peers if key in DENSE]
    slow = tokens > SLOW_TOKENS
    return [key for key in DENSE if key != "sdpa" and not (slow and key in SLOW_PEERS)]


def flex_is_wanted(arguments: argparse.Namespace, shape: Shape) -> bool:
    """Tells whether FlexAttention is measured: on the first shape, or whatever is asked for."""
    asked = FLEX if arguments.peers is None else arguments.peers
    everywhere = arguments.peers is not None or shape is next(iter(SHAPES.values()))
    return everywhere and not FLEX.keys().isdisjoint(asked) and MEASURED_PERCENT in arguments.plans


class Measurement:
    """Gates and times layer after layer; rows are written as soon as they are known."""

    def __init__(self, results: Results, arguments: argparse.Namespace):
        self.results, self.arguments = results, arguments
        self.red = False
        self._deadline = Deadline(arguments.minutes)
        self._device = torch.cuda.get_device_name() if arguments.device == "cuda" else None
        self._dense: dict[tuple[str, int], dict[str, float]] = {}

    def attempt(self, shape: Shape, tokens: int, measure: Callable[[Layer], None]) -> None:
        """Measures one layer, unless time is up; whatever fails becomes a row."""
        subject = self._subject("photomask", f"{shape.name}, {tokens} tokens")
        if self._deadline.passed:
            self.results.skipped(subject, f"{measure.__name__}: time is up")
            return
        try:
            measure(make_layer(shape, tokens, self.arguments.device))
        except Exception as error:  # noqa: BLE001 - out of memory, most likely; the row says
            self.results.skipped(subject, f"{measure.__name__}: {type(error).__name__}: {error}")
        finally:
            gc.collect()
            torch.cuda.empty_cache()

    def compare(self, layer: Layer) -> None:
        """Measures dense kernels, and plans on prompts of several sizes of images."""
        shape = layer.shape
        tokens = layer.tokens
        device = self.arguments.device
        sizes = images_wanted(self.arguments, tokens)
        prompts = [make_prompt(shape, tokens, size, device) for size in sizes]
        entries = self._dense_entries(layer, prompts[0])
        dense = [entry.subject.implementation for entry in entries]
        for prompt in prompts:
            gate = Gate.of(layer, prompt)
            for percent in plans_wanted(self.arguments, prompt.image_tokens):
                entries += self._plan_entries(layer, prompt, gate, make_plan(shape, percent))
        times = self._time(entries)
        builds = [self._schedule_entry(layer, prompt) for prompt in prompts]
        for entry in builds:  # light: beside the others it would let the GPU rest
            self._report(layer, entry, self._time([entry])[0], {})
        medians = {
            entry.subject.implementation: statistics.median(found)
            for entry, found in zip(entries, times, strict=True)
            if entry.subject.implementation in dense
        }
        self._dense[shape.name, tokens] = medians
        for entry, found in zip(entries, times, strict=True):
            self._report(layer, entry, found, medians)

    def compare_flex(self, layer: Layer) -> None:
        """Measures FlexAttention with the masks of the measured plan, and the plan again."""
        torch._dynamo.reset()
        shape, tokens = layer.shape, layer.tokens
        image = images_wanted(self.arguments, tokens)[0]
        prompt = make_prompt(shape, tokens, image, self.arguments.device)
        plan, gate = make_plan(shape, MEASURED_PERCENT), Gate.of(layer, prompt)
        asked, entries = self.arguments.peers, []
        for key, (name, options) in FLEX.items():
            if asked is None or key in asked:
                subject = self._subject(f"{name}, {plan.name}", network(layer, prompt), "torch")
                call = self._prepare(
                    subject,
                    lambda options=options: make_flex(layer, prompt, plan.patterns, options),
                    gate,
                    plan.patterns,
                )
                if call:
                    entries.append(Entry(subject, call, prompt.pairs(plan.patterns), shape.note))
        if not entries:
            return
        subject = self._subject(f"photomask, {plan.name}", network(layer, prompt))
        ours = self._prepare(
            subject,
            lambda: make_ours(layer, prompt, plan.patterns, prompt.rule),
            gate,
            plan.patterns,
        )
        if ours is None:
            self.red = True
            return
        *times, found = self._time([*entries, Entry(subject, ours, None)])
        dense = self._dense.get((shape.name, tokens), {})
        for entry, samples in zip(entries, times, strict=True):
            self._report(layer, entry, samples, {})
            self._speeds(entry.subject, samples, dense)
            self._speeds(subject, found, {entry.subject.implementation: statistics.median(samples)})

    def _dense_entries(self, layer: Layer, prompt: Prompt) -> list[Entry]:
        """Prepares the dense peers that run, and notes their errors."""
        gate, dense = Gate.causal(layer, prompt), [Pattern.DENSE] * layer.shape.heads
        note = layer.shape.note
        if layer.shape.rule.bidirectional:
            note = f"{note}; {CAUSAL}"
        entries = []
        for key in peers_wanted(self.arguments, layer.tokens):
            peer = DENSE[key]
            subject = self._subject(peer.name, network(layer), peer.package)
            call = self._prepare(subject, lambda peer=peer: peer.make(layer, prompt), gate, dense)
            if call:
                entries.append(Entry(subject, call, layer.causal_pairs, note))
        return entries

    def _plan_entries(self, layer: Layer, prompt: Prompt, gate: Gate, plan: Plan) -> list[Entry]:
        """Prepares a plan of ours, and parts of the measured one."""
        pairs, patterns = prompt.pairs(plan.patterns), plan.patterns
        subject = self._subject(f"photomask, {plan.name}", network(layer, prompt))
        call = self._prepare(
            subject, lambda: make_ours(layer, prompt, patterns, prompt.rule), gate, patterns
        )
        if call is None:
            self.red = True
            return []
        entry = Entry(subject, call, pairs, layer.shape.note, pairs / layer.causal_pairs)
        if plan.percent != MEASURED_PERCENT:
            return [entry]
        self._memory(subject, layer, call)
        return [entry, *self._part_entries(layer, prompt, gate, entry, patterns)]

    def _part_entries(
        self, layer: Layer, prompt: Prompt, gate: Gate, whole: Entry, patterns: Sequence[Pattern]
    ) -> list[Entry]:
        """Prepares a plan without dense kernels, and its sparse heads alone."""
        name, where = whole.subject.implementation, network(layer, prompt)
        entries = []
        alone = self._subject(f"{name}, Triton alone", where)
        call = self._prepare(
            alone, lambda: make_ours(layer, prompt, patterns, prompt.rule, "triton"), gate, patterns
        )
        if call:
            note = "dense heads too"
            entries.append(Entry(alone, call, whole.pairs, note, whole.density))
        sparse = [head for head, each in enumerate(patterns) if each is not Pattern.DENSE]
        alone = self._subject(f"{name}, sparse heads alone", where)
        call = self._prepare(
            alone, lambda: make_sparse_alone(layer, prompt, patterns), gate, patterns, sparse
        )
        if call:
            note = f"{len(sparse)} of {len(patterns)} heads"
            entries.append(Entry(alone, call, prompt.pairs([patterns[h] for h in sparse]), note))
        return entries

    def _schedule_entry(self, layer: Layer, prompt: Prompt) -> Entry:
        """Prepares the building of a schedule, and notes how large it is."""
        subject = self._subject("photomask, schedule", network(layer, prompt))
        arguments = prompt.layout, prompt.sinks, prompt.rule
        found = tensor_bytes(build_schedule(*arguments)) / tensor_bytes(layer, "key", "value")
        self.results.number(subject, "memory over keys and values", found, "ratio")
        return Entry(subject, lambda: build_schedule(*arguments), None, "once a prompt")

    def _prepare(
        self,
        subject: Subject,
        make: Callable[[], Call],
        gate: Gate,
        patterns: Sequence[Pattern],
        heads: Sequence[int] | None = None,
    ) -> Call | None:
        """Prepares a call, and compares sampled rows of heads; None, and a row, if it fails."""
        try:
            call = make()
            error = gate.error(run_poisoned(call, gate.layer.query), patterns, heads)
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way; the row says how
            self.results.skipped(subject, f"{type(error).__name__}: {error}")
            return None
        if not error < LARGEST_ERROR:
            self.results.skipped(subject, f"red gate: relative error {error:.1e} of the worst head")
            return None
        self.results.number(subject, "error", error, "ratio", note="relative, of the worst head")
        return call

    def _memory(self, subject: Subject, layer: Layer, call: Call) -> None:
        """Notes what a call allocates beside its output, over the keys and values of the layer."""
        if self.arguments.device == "cpu":
            return
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        extra = torch.cuda.max_memory_allocated() - before - tensor_bytes(layer, "query")
        ratio = max(extra, 0) / tensor_bytes(layer, "key", "value")
        note = "what a call allocates beside its output"
        self.results.number(subject, "memory over keys and values", ratio, "ratio", note=note)

    def _time(self, entries: Sequence[Entry]) -> list[list[float]]:
        calls = dict(enumerate(entry.call for entry in entries))
        device = torch.device(self.arguments.device)
        return list(time_together(calls, self.arguments.milliseconds, device).values())

    def _report(
        self, layer: Layer, entry: Entry, times: Sequence[float], dense: Mapping[str, float]
    ) -> None:
        """Writes the rows of something timed; those of a plan beside the dense kernels."""
        subject, results = entry.subject, self.results
        metric = "time" if entry.pairs else "schedule"
        results.samples(subject, metric, times, "ms", note=entry.note)
        if entry.pairs:
            rates = [4 * layer.shape.head_size * entry.pairs / each / 1e9 for each in times]
            results.samples(subject, "rate", rates, "TFLOP/s", note="of visible pairs")
        if entry.density is None:
            return
        note = "visible pairs over causal pairs"
        results.number(subject, "density", entry.density, "ratio", note=note)
        self._speeds(subject, times, dense)
        for name, median in dense.items():
            shares = [median * entry.density / each for each in times]
            results.samples(subject, f"share of the ideal of {name}", shares, "ratio")

    def _speeds(
        self, subject: Subject, times: Sequence[float], medians: Mapping[str, float]
    ) -> None:
        for name, median in medians.items():
            ratios = [median / each for each in times]
            self.results.samples(subject, f"speed over {name}", ratios, "ratio")

    def _subject(self, name: str, where: str, package: str = "photomask") -> Subject:
        return Subject(WHAT, name, where, package, self._device)


def network(layer: Layer, prompt: Prompt | None = None) -> str:
    """Names a setting in rows: the shape, the length and, if it matters, the size of images."""
    images = f", images of {prompt.image_tokens}" if prompt else ""
    return f"{layer.shape.name}, {layer.tokens} tokens{images}"


def tensor_bytes(holder: Layer | Schedule, *names: str) -> int:
    """Adds up the tensors of a dataclass, or those of some names."""
    names = names or tuple(field.name for field in dataclasses.fields(holder))
    tensors = [each for name in names if isinstance(each := getattr(holder, name), Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


if __name__ == "__main__":
    sys.exit(main())

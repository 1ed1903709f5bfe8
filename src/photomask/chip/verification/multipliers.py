"""What narrower rescaling multipliers would cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from photomask.chip.engines import TorchEngine
from photomask.chip.formats import IntFormat
from photomask.chip.program import IntegerProgram
from photomask.chip.verification.documents import MultiplierCost, MultiplierStudy
from photomask.chip.verification.engines import quantized
from photomask.chip.verification.outputs import Reference, is_classes
from photomask.chip.verification.rescaling import with_multiplier_bits
from photomask.errors import DocumentError, TargetError
from photomask.report import NoiseMeter, Progress, Top1Meter

Codes = dict[str, Tensor]


@dataclass
class _Tally:
    """How a program with another multiplier width differs from the widest."""

    relative_error: float
    outputs: int = 0
    outputs_changed: int = 0
    activations: int = 0
    activations_changed: int = 0
    largest: int = 0
    noise: NoiseMeter = field(default_factory=NoiseMeter)
    top1: Top1Meter = field(default_factory=Top1Meter)

    def add(self, program: IntegerProgram, name: str, found: Tensor, expected: Tensor) -> None:
        """Counts a batch of one activation."""
        wide = torch.int64 if found.dtype in (torch.int32, torch.int64) else torch.int32
        difference = found.to(wide).sub_(expected)
        changed = int(difference.count_nonzero())
        self.activations += found.numel()
        self.activations_changed += changed
        if name in program.outputs:
            self.outputs += found.numel()
            self.outputs_changed += changed
        elif changed:
            self.largest = max(self.largest, *(abs(int(end)) for end in difference.aminmax()))


@dataclass
class _Study:
    """Samples, what the float model and the widest multiplier make of them, and what differs."""

    batches: Sequence[list[Tensor]]
    scores: list[Tensor]
    """The float model's first output, per batch."""
    labels: list[Tensor | None]
    device: torch.device
    expected: list[Codes] = field(default_factory=list)
    """Activations of the widest, per batch."""

    def run(self, program: IntegerProgram) -> _Tally:
        """Runs a program; the first one is what the others are compared with."""
        engine = TorchEngine(program, self.device)
        error = max((step.relative_error for step in program.steps), default=0.0)
        tally, is_first = _Tally(error), not self.expected
        for batch, scores, labels, position in zip(
            self.batches, self.scores, self.labels, range(len(self.batches)), strict=True
        ):
            if is_first:
                self.expected.append({})
            expected = self.expected[position]
            for name, found in _activations(engine, batch):
                codes = _narrowed(found, program.edges[name].format)
                if is_first:
                    expected[name] = codes
                tally.add(program, name, codes, expected[name])
                if name == program.outputs[0]:
                    edge, chosen = program.edges[name], found.cpu()
                    tally.noise.add(scores, edge.dequantize(chosen))
                    if is_classes(edge.shape):
                        tally.top1.add(scores, chosen, labels)
        return tally


def study_multipliers(
    program: IntegerProgram,
    reference: Reference,
    batches: Sequence[list[Tensor]],
    labels: Tensor | None,
    widths: Sequence[int],
    progress: Progress,
    device: torch.device,
) -> MultiplierStudy | None:
    """Makes the program again with other multiplier widths and compares their integers.

    Args:
        program: what was made; its own width is studied too.
        reference: the float model.
        batches: real inputs.
        labels: the right classes of the first output, for all batches.
        widths: bits of the multipliers.
        progress: shows how far it is.
        device: where to run.

    Returns:
        The costs, narrowest first; None where the target has no multipliers, or none was asked for.
    """
    if program.target.power_of_two_only or not widths:
        return None
    starts = accumulate((len(batch[0]) for batch in batches), initial=0)
    study = _Study(
        batches,
        [reference(batch)[0] for batch in batches],
        [
            None if labels is None else labels[start : start + len(batch[0])]
            for start, batch in zip(starts, batches, strict=False)
        ],
        device,
    )
    tallies: dict[int, _Tally] = {}
    problems: dict[int, str] = {}
    asked = sorted({*widths, program.target.multiplier_bits}, reverse=True)
    for bits in progress(asked, "multiplier widths"):
        try:
            rebuilt = with_multiplier_bits(program, bits)
        except (TargetError, DocumentError) as error:
            problems[bits] = str(error)
            continue
        tallies[bits] = study.run(rebuilt)
    if not tallies:
        return None
    return MultiplierStudy(
        samples=sum(len(batch[0]) for batch in batches),
        reference_bits=max(tallies),
        costs=tuple(
            _cost(bits, tallies.get(bits), problems.get(bits), program, labels is not None)
            for bits in reversed(asked)
        ),
    )


def _activations(engine: TorchEngine, batch: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the rescaled edges; accumulators have units of their own."""
    for name, value in engine.edges(quantized(engine.program, batch)):
        if engine.program.edges[name].role == "activation":
            yield name, value


def _narrowed(codes: Tensor, format: IntFormat) -> Tensor:
    """Keeps codes in few bytes."""
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        limits = torch.iinfo(dtype)
        if limits.min <= format.low and format.high <= limits.max:
            return codes.to(dtype)
    return codes


def _cost(
    bits: int,
    tally: _Tally | None,
    problem: str | None,
    program: IntegerProgram,
    labelled: bool,
) -> MultiplierCost:
    if tally is None:
        return MultiplierCost(
            bits=bits,
            chosen=bits == program.target.multiplier_bits,
            problem=problem,
            relative_error=None,
            outputs_changed=None,
            activations_changed=None,
            largest_difference=None,
            output_sqnr_db=None,
            agreement=None,
            top1=None,
        )
    return MultiplierCost(
        bits=bits,
        chosen=bits == program.target.multiplier_bits,
        problem=None,
        relative_error=tally.relative_error,
        outputs_changed=100 * tally.outputs_changed / max(1, tally.outputs),
        activations_changed=100 * tally.activations_changed / max(1, tally.activations),
        largest_difference=tally.largest,
        output_sqnr_db=tally.noise.sqnr_db,
        agreement=tally.top1.agreement if tally.top1.samples else None,
        top1=tally.top1.found_top1 if labelled else None,
    )

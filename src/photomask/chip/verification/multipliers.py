"""What narrower rescaling multipliers would cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from photomask.chip.engines import TorchEngine
from photomask.chip.program import IntegerProgram
from photomask.chip.verification.documents import MultiplierCost, MultiplierStudy
from photomask.chip.verification.engines import quantized
from photomask.chip.verification.outputs import Reference, is_classes
from photomask.chip.verification.rescaling import with_multiplier_bits
from photomask.errors import DocumentError, TargetError
from photomask.report import NoiseMeter, Progress, Top1Meter


@dataclass
class _Variant:
    """A program with another multiplier width, and how it differs from the widest."""

    program: IntegerProgram
    engine: TorchEngine
    outputs: int = 0
    outputs_changed: int = 0
    activations: int = 0
    activations_changed: int = 0
    largest: int = 0
    noise: NoiseMeter = field(default_factory=NoiseMeter)
    top1: Top1Meter = field(default_factory=Top1Meter)


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
    variants: dict[int, _Variant] = {}
    problems: dict[int, str] = {}
    for bits in sorted({*widths, program.target.multiplier_bits}):
        try:
            rebuilt = with_multiplier_bits(program, bits)
        except (TargetError, DocumentError) as error:
            problems[bits] = str(error)
            continue
        variants[bits] = _Variant(rebuilt, TorchEngine(rebuilt, device))
    if not variants:
        return None
    widest = max(variants)
    done = 0
    for batch in progress(batches, "multiplier widths"):
        right = None if labels is None else labels[done : done + len(batch[0])]
        _compare(variants, variants[widest], reference(batch), batch, right)
        done += len(batch[0])
    costs = [
        _cost(bits, variants.get(bits), problems.get(bits), program, labels is not None)
        for bits in sorted({*variants, *problems})
    ]
    return MultiplierStudy(samples=done, reference_bits=widest, costs=tuple(costs))


def _compare(
    variants: dict[int, _Variant],
    widest: _Variant,
    floats: Sequence[Tensor],
    batch: list[Tensor],
    labels: Tensor | None,
) -> None:
    codes = quantized(widest.program, batch)
    expected = dict(_activations(widest, codes))
    for variant in variants.values():
        for name, found in _activations(variant, codes):
            difference = (found - expected[name]).abs_()
            changed = int(difference.count_nonzero())
            variant.activations += found.numel()
            variant.activations_changed += changed
            if name not in variant.program.outputs:
                variant.largest = max(variant.largest, int(difference.max()))
                continue
            variant.outputs += found.numel()
            variant.outputs_changed += changed
            if name == variant.program.outputs[0]:
                edge, scores = variant.program.edges[name], found.cpu()
                variant.noise.add(floats[0], edge.dequantize(scores))
                if is_classes(edge.shape):
                    variant.top1.add(floats[0], scores, labels)


def _activations(variant: _Variant, codes: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the rescaled edges; accumulators have units of their own."""
    for name, value in variant.engine.edges(codes):
        if variant.program.edges[name].role == "activation":
            yield name, value.to(torch.int32)


def _cost(
    bits: int,
    variant: _Variant | None,
    problem: str | None,
    program: IntegerProgram,
    labelled: bool,
) -> MultiplierCost:
    if variant is None:
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
        relative_error=max((step.relative_error for step in variant.program.steps), default=0.0),
        outputs_changed=100 * variant.outputs_changed / max(1, variant.outputs),
        activations_changed=100 * variant.activations_changed / max(1, variant.activations),
        largest_difference=variant.largest,
        output_sqnr_db=variant.noise.sqnr_db,
        agreement=variant.top1.agreement if variant.top1.samples else None,
        top1=variant.top1.found_top1 if labelled else None,
    )

"""`verify`: is this program a faithful copy of that model?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

import photomask
from photomask.chip.data import Data, as_tensor
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.engines import TorchEngine
from photomask.chip.graph import FloatGraph, capture_simplified
from photomask.chip.graph.float_model import FloatModel
from photomask.chip.labels import class_labels
from photomask.chip.preparation import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.verification.documents import (
    EngineReport,
    LayerReport,
    OutputReport,
    Thresholds,
    TotalsReport,
)
from photomask.chip.verification.engines import compare_engines, quantized
from photomask.chip.verification.inputs import checked_inputs
from photomask.chip.verification.layers import compare_layers
from photomask.chip.verification.multipliers import study_multipliers
from photomask.chip.verification.outputs import Reference, compare_outputs, is_classes, split
from photomask.chip.verification.report import Report
from photomask.errors import DataError, UsageError
from photomask.report import Check, Progress, in_order, without_progress
from photomask.stages import stage

DEFAULT_THRESHOLDS = Thresholds()
ORACLE_OPERATIONS = 1 << 32
"""Multiply-accumulates of the NumPy oracle: a few seconds."""
LAYER_ACTIVATIONS = 1 << 27
STUDY_ACTIVATIONS = 1 << 26
MOST_SAMPLES = {"oracle": 64, "layer": 128, "study": 128}
MULTIPLIER_WIDTHS = (4, 6, 8, 10, 12, 16, 24)


@stage(__name__, "verify")
@float32_by_default()
def verify(
    model: nn.Module,
    program: IntegerProgram,
    inputs: Data,
    labels: Any = None,
    *,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    graph: FloatGraph | None = None,
    prepared: PreparedModel | None = None,
    oracle_samples: int | None = None,
    layer_samples: int | None = None,
    study_samples: int | None = None,
    multiplier_widths: Sequence[int] = MULTIPLIER_WIDTHS,
    device: str | torch.device = "cpu",
    progress: Progress = without_progress,
) -> Report:
    """Compares an integer program with the float model that it was made from.

    Outputs are compared on all samples; the two engines, the layers and other multiplier widths on
    the first ones: as many as asked for, or as take a few seconds each on a large network and are
    enough on a small one.

    Args:
        model: the original float model; not changed.
        program: as converted, or loaded from a file.
        inputs: real samples at axis 0, in any form that `photomask.chip.data` describes. Integers
            where an input takes numbers of rows, such as tokens.
        labels: the right classes, integers [samples], of the first output; or one entry per output.
            Where None, those that came with the inputs.
        thresholds: when the program passes.
        graph: the model's simplified float graph where there is one (`prepared.graph`); else the
            model is captured.
        prepared: the model that the program was converted from, as it was converted. With it every
            integer is compared with what `convert` makes of it, trained parameters and tuned
            roundings included; without it, learned parameters are compared with the model's where
            nearly all of a layer are the model's, rounded.
        oracle_samples: for the comparison of both engines on every edge; at most 64 by default.
        layer_samples: for signal and noise, ranges and saturation of every layer; at most 128.
        study_samples: for the cost of other multiplier widths; at most 128.
        multiplier_widths: bits to study; none for no study.
        device: where the torch engine runs.
        progress: wraps the batches of each part, to show how far it is.

    Returns:
        What was found; `report.passed` is the verdict.

    Raises:
        DataError: inputs or labels of the wrong shape or dtype, or none; or the program was made
            from another model.
        UsageError: a number of samples below 1, or arguments in another order.
        CaptureError: the model cannot be captured.
    """
    call = "verify(model, program, inputs, labels)"
    model, program = in_order(model, program, IntegerProgram, call)
    batch = checked_inputs(program, inputs)
    tensors = batch.inputs
    targets = _checked_labels(program, batch.labels if labels is None else labels, len(tensors[0]))
    samples = _Samples.of(program, oracle_samples, layer_samples, study_samples)
    if prepared is not None:
        graph = prepared.graph
    if graph is None:
        graph = capture_simplified(model, _example(model, program, tensors))
    engine, reference = TorchEngine(program, device), Reference(model, program.inputs)
    codes = quantized(program, [x[: samples.oracle] for x in tensors])
    with torch.no_grad():
        engines = compare_engines(program, engine, codes, progress)
        layer_batches = split(tensors, samples.layer)
        layers = compare_layers(program, graph, engine, layer_batches, progress, prepared)
        multipliers = study_multipliers(
            program,
            reference,
            split(tensors, samples.study),
            targets[0],
            multiplier_widths,
            progress,
            engine.device,
        )
        outputs = compare_outputs(program, engine, reference, tensors, targets, progress)
    return Report(
        photomask_version=photomask.__version__,
        program_sha256=program.content_hash(),
        provenance=program.provenance,
        target=program.target,
        samples=len(tensors[0]),
        labelled=any(target is not None for target in targets),
        layer_samples=sum(len(batch[0]) for batch in layer_batches),
        thresholds=thresholds,
        checks=judge(thresholds, outputs, engines, layers),
        outputs=outputs,
        engine=engines,
        layers=layers,
        totals=_totals(program, layers),
        multipliers=multipliers,
    )


@dataclass(frozen=True)
class _Samples:
    """How many samples each part takes."""

    oracle: int
    layer: int
    study: int

    @classmethod
    def of(cls, program: IntegerProgram, *asked: int | None) -> Self:
        """Returns what was asked for, and otherwise what the network's size allows."""
        operations = sum(program.multiply_accumulates().values())
        edges = [edge for edge in program.edges.values() if edge.role != "accumulator"]
        activations = sum(math.prod(edge.shape) for edge in edges)
        affordable = (
            ORACLE_OPERATIONS // max(1, operations),
            LAYER_ACTIVATIONS // activations,
            STUDY_ACTIVATIONS // activations,
        )
        counts = []
        for (part, most), want, can in zip(MOST_SAMPLES.items(), asked, affordable, strict=True):
            if want is not None and want < 1:
                raise UsageError(f"{part}_samples must be at least 1, got {want}")
            counts.append(max(1, min(most, can)) if want is None else want)
        return cls(*counts)


def judge(
    thresholds: Thresholds,
    outputs: Sequence[OutputReport],
    engine: EngineReport,
    layers: Sequence[LayerReport],
) -> tuple[Check, ...]:
    """Returns every condition that applies, met or not."""
    wrong = sum(layer.wrong_rescalings for layer in layers)
    checks = [
        Check.at_most("engine mismatches", engine.mismatches, 0),
        Check.at_most("rescalings that the scales do not call for", wrong, 0),
        Check.at_most(
            "values that the model does not call for",
            sum(layer.wrong_values for layer in layers),
            0,
        ),
    ]
    if thresholds.max_stray_parameters is not None:
        weights = [layer.weight for layer in layers if layer.weight is not None]
        strays = sum((w.stray_weights or 0) + (w.stray_biases or 0) for w in weights)
        strays += sum(layer.stray_constants for layer in layers)
        limit = thresholds.max_stray_parameters
        checks.append(Check.at_most("parameters that are not the model's", strays, limit))
    for output in outputs:
        checks += _output_checks(thresholds, output)
    if thresholds.min_layer_sqnr_db is not None:
        worst = min(layers, key=lambda layer: layer.sqnr_db)
        name = f"SQNR of the worst layer, {worst.node!r}"
        checks.append(Check.at_least(name, worst.sqnr_db, thresholds.min_layer_sqnr_db, "dB"))
    if thresholds.max_saturation is not None:
        most = max(layers, key=lambda layer: layer.saturation)
        name = f"saturated outputs of {most.node!r}"
        checks.append(Check.at_most(name, most.saturation, thresholds.max_saturation, "%"))
    return tuple(checks)


def _output_checks(thresholds: Thresholds, output: OutputReport) -> list[Check]:
    checks = []
    where = f"of output {output.name!r}"
    if thresholds.min_output_sqnr_db is not None:
        limit = thresholds.min_output_sqnr_db
        checks.append(Check.at_least(f"SQNR {where}", output.sqnr_db, limit, "dB"))
    if output.float_top1 is None or output.integer_top1 is None or output.agreement is None:
        return checks
    if thresholds.min_top1_agreement is not None:
        limit = thresholds.min_top1_agreement
        checks.append(Check.at_least(f"top-1 agreement {where}", output.agreement, limit, "%"))
    if thresholds.max_accuracy_drop is not None:
        lost = output.float_top1 - output.integer_top1
        limit = thresholds.max_accuracy_drop
        checks.append(Check.at_most(f"accuracy lost {where}", lost, limit, "points"))
    return checks


def _totals(program: IntegerProgram, layers: Sequence[LayerReport]) -> TotalsReport:
    parameters = sum(layer.parameters for layer in layers)
    learned = {step.tensors[role] for step in program.steps for role in step.operator.model_roles()}
    bits = sum(program.tensors[name].size * program.formats[name].bits for name in learned)
    return TotalsReport(
        parameters=parameters,
        float_bytes=4.0 * parameters,
        weight_bytes=bits / 8,
        integer_bytes=program.weight_bytes(),
        multiply_accumulates=sum(layer.multiply_accumulates for layer in layers),
    )


def _example(
    model: nn.Module, program: IntegerProgram, tensors: Sequence[Tensor]
) -> Sequence[Tensor] | dict[str, Tensor]:
    """Returns one sample as the model is called: by name where it has such parameters."""
    first = [x[:1] for x in tensors]
    named = FloatModel(model, program.inputs).names
    return first if named is None else dict(zip(named, first, strict=True))


def _checked_labels(program: IntegerProgram, labels: Any, samples: int) -> list[Tensor | None]:
    """Returns one entry per output."""
    alone = not isinstance(labels, (tuple, list)) or not any(
        x is None or as_tensor(x) is not None for x in labels
    )
    given = [labels] if alone else list(labels)
    if len(given) > len(program.outputs):
        raise DataError(f"{len(given)} labels for the outputs {list(program.outputs)}")
    given += [None] * (len(program.outputs) - len(given))
    targets: list[Tensor | None] = []
    for name, target in zip(program.outputs, given, strict=True):
        shape = program.edges[name].shape
        if target is not None and not is_classes(shape):
            raise DataError(f"output {name!r} of shape {list(shape)} has no classes to be right")
        what = f"labels of output {name!r}"
        targets.append(
            None if target is None else class_labels(target, shape[1:], samples, what).cpu()
        )
    return targets

"""`verify`: is this program a faithful copy of that model?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

import photomask
from photomask.chip.cost.accelerator import Accelerator
from photomask.chip.cost.estimates import estimate
from photomask.chip.data import Data, as_tensor
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.engines import TorchEngine
from photomask.chip.graph import FloatGraph, capture_simplified
from photomask.chip.graph.float_model import FloatModel
from photomask.chip.labels import class_labels
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.program import IntegerProgram
from photomask.chip.verification.documents import (
    EngineReport,
    LayerReport,
    MultiplierStudy,
    OutputReport,
    Thresholds,
    TotalsReport,
)
from photomask.chip.verification.engines import compare_engines, quantized
from photomask.chip.verification.inputs import checked_inputs
from photomask.chip.verification.layer_sensitivity import (
    LayerSensitivities,
    measure_layer_sensitivity,
)
from photomask.chip.verification.layers import compare_layers
from photomask.chip.verification.multipliers import study_multipliers
from photomask.chip.verification.origin import data_records, recipe_record
from photomask.chip.verification.outputs import Reference, compare_outputs, is_classes, split
from photomask.chip.verification.report import Report
from photomask.chip.verification.samples import WorstSamples
from photomask.chip.verification.sparsity import LayerSparsity, layer_sparsities, sparsity_checks
from photomask.chip.verification.steps import program_facts
from photomask.errors import DataError, UsageError
from photomask.report import Check, Progress, RunRecord, in_order, without_progress
from photomask.stages import stage

DEFAULT_THRESHOLDS = Thresholds()
CALL = "verify(model, program, inputs, labels)"
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
    sensitivity_samples: int | None = None,
    accelerator: Accelerator | str | Path | None = None,
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
        sensitivity_samples: on how many samples `measure_layer_sensitivity` measures what the
            quantization of each layer costs; None for none. It needs `prepared`, and takes two
            passes for each layer.
        accelerator: the machine whose cycles and memory addresses the report shows; or a preset's
            name, or a file.
        device: where the torch engine runs.
        progress: wraps the batches of each part, to show how far it is.

    Returns:
        What was found; `report.passed` is the verdict.

    Raises:
        DataError: inputs or labels of the wrong shape or dtype, or none; or the program was made
            from another model.
        UsageError: a number of samples below 1, arguments in another order, or
            `sensitivity_samples` without `prepared`.
        OrderError: the weights of `prepared` are rounded to codes already, so that the cost of each
            layer cannot be measured.
        TargetError: the program does not fit the accelerator.
        CaptureError: the model cannot be captured.
    """
    model, program = in_order(model, program, IntegerProgram, CALL)
    batch = checked_inputs(program, inputs)
    tensors = batch.inputs
    targets = _checked_labels(program, batch.labels if labels is None else labels, len(tensors[0]))
    samples = _Samples.of(program, oracle_samples, layer_samples, study_samples)
    hardware = None if accelerator is None else estimate(program, accelerator)
    sparsity = layer_sparsities(program, prepared)
    sensitivity = _sensitivity(prepared, tensors, targets[0], sensitivity_samples, progress)
    if prepared is not None:
        graph = prepared.graph
    graph = graph or capture_simplified(model, _example(model, program, tensors))
    given = _Given(tensors, targets, graph, prepared, samples)
    engine, reference = TorchEngine(program, device), Reference(model, program.inputs)
    found = _compare(program, engine, reference, given, multiplier_widths, progress)
    facts = program_facts(program, found.layers, hardware)
    return Report(
        photomask_version=photomask.__version__,
        program_sha256=program.content_hash(),
        provenance=program.provenance,
        target=program.target,
        samples=len(tensors[0]),
        labelled=any(target is not None for target in targets),
        layer_samples=min(samples.layer, len(tensors[0])),
        thresholds=thresholds,
        checks=judge(thresholds, found.outputs, found.engine, found.layers, sparsity),
        outputs=found.outputs,
        engine=found.engine,
        layers=found.layers,
        sparsity=sparsity,
        totals=_totals(program, found.layers),
        multipliers=found.multipliers,
        inputs=facts.inputs,
        steps=facts.steps,
        memory=facts.memory,
        worst_samples=found.worst.reports(tensors),
        sensitivity=sensitivity,
        hardware=hardware,
        run=RunRecord.here(torch.device(device)),
        data=data_records(program, tensors, targets),
        recipe=None if prepared is None else recipe_record(prepared.recipe),
    )


@dataclass(frozen=True)
class _Given:
    """What is compared on, checked."""

    tensors: Sequence[Tensor]
    labels: Sequence[Tensor | None]
    graph: FloatGraph
    prepared: PreparedModel | None
    samples: "_Samples"


@dataclass(frozen=True)
class _Found:
    """What running model and program came to."""

    engine: EngineReport
    layers: tuple[LayerReport, ...]
    multipliers: MultiplierStudy | None
    outputs: tuple[OutputReport, ...]
    worst: WorstSamples


def _compare(
    program: IntegerProgram,
    engine: TorchEngine,
    reference: Reference,
    given: _Given,
    widths: Sequence[int],
    progress: Progress,
) -> _Found:
    """Runs model and program side by side, each part on its number of samples."""
    tensors, labels = given.tensors, given.labels
    samples = given.samples
    codes = quantized(program, [x[: samples.oracle] for x in tensors])
    batches, study = split(tensors, samples.layer), split(tensors, samples.study)
    worst = WorstSamples()
    with torch.no_grad():
        return _Found(
            engine=compare_engines(program, engine, codes, progress),
            layers=compare_layers(program, given.graph, engine, batches, progress, given.prepared),
            multipliers=study_multipliers(
                program, reference, study, labels[0], widths, progress, engine.device
            ),
            outputs=compare_outputs(
                program, engine, reference, tensors, labels, worst.add, progress
            ),
            worst=worst,
        )


def _sensitivity(
    prepared: PreparedModel | None,
    tensors: Sequence[Tensor],
    labels: Tensor | None,
    count: int | None,
    progress: Progress,
) -> LayerSensitivities | None:
    """Measures what each layer costs where that was asked for."""
    if count is None:
        return None
    if count < 1:
        raise UsageError(f"sensitivity_samples must be at least 1, got {count}")
    if prepared is None:
        raise UsageError(
            "sensitivity_samples needs the prepared model, whose layers are quantized one by one: "
            "verify(model, program, inputs, prepared=prepared, sensitivity_samples=32)"
        )
    first = [x[:count] for x in tensors]
    right = None if labels is None else labels[:count]
    return measure_layer_sensitivity(prepared, first, right, progress=progress)


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
    sparsity: Sequence[LayerSparsity] = (),
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
    checks += sparsity_checks(sparsity)
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

"""Measures, on calibration data, the error of the outputs for each width of each tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from photomask.chip.calibration import batches_of
from photomask.chip.data import Data
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import FloatGraph, Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Input
from photomask.chip.mixed_precision.hessian import hessian_traces
from photomask.chip.mixed_precision.widths import open_sites, with_bits
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.quantizers import Quantizer
from photomask.chip.standing import Effect, changes
from photomask.documents import Document
from photomask.errors import DataError, RecipeError, UsageError
from photomask.report import Progress, Shown, Table, without_progress
from photomask.stages import stage

Role = Literal["weight", "activation"]


class Measure(StrEnum):
    """A measure of the error that a quantized tensor causes."""

    OUTPUT_KL = "output_kl"
    """The mean over samples of `KL(softmax(y) || softmax(y_q))` along the last axis, in nats. Here
    `y` are the float outputs, and `y_q` the outputs with only this tensor quantized."""
    OUTPUT_MSE = "output_mse"
    """The ratio of noise to signal of the outputs, `sum (y - y_q)**2 / sum y**2`."""
    HESSIAN = "hessian"
    """The second-order estimate of the KL divergence, `trace(H) / n * sum (w - w_q)**2 / 2`, where
    `H` is its Hessian with respect to the layer's `n` weights. It is for weights only.

    Source: HAWQ-V2, Dong et al. 2020, section 3.1, arXiv:1911.03852. There, `H` is the Hessian of
    the training loss; that of the divergence from the float model needs no labels."""


class Sensitivity(Document):
    """The error of each candidate width of one tensor."""

    site: str
    role: Role
    bits: tuple[int, ...] = Field(min_length=1)
    """The candidate widths."""
    errors: tuple[float, ...]
    """The error of each candidate width."""

    @model_validator(mode="after")
    def _has_an_error_of_each_width(self) -> "Sensitivity":
        if len(self.errors) != len(self.bits) or len({*self.bits}) < len(self.bits):
            raise ValueError(
                "expected different widths with one error each, found widths "
                f"{self.bits} and errors {self.errors}"
            )
        return self


class Sensitivities(Shown, Document):
    """The errors of all tensors whose width is to be chosen."""

    schema_version: Literal[1] = 1
    measure: Measure
    samples: int
    tensors: tuple[Sensitivity, ...]

    def shown(self) -> Table:
        """Returns a table of the errors with a row for each tensor and a column for each width."""
        widths = sorted({bits for tensor in self.tensors for bits in tensor.bits})
        rows = [("tensor", "of", *(f"{bits} bits" for bits in widths))]
        for tensor in self.tensors:
            errors = dict(zip(tensor.bits, tensor.errors, strict=True))
            found = (f"{errors[bits]:.3g}" if bits in errors else "" for bits in widths)
            rows.append((tensor.site, tensor.role, *found))
        return Table(f"error by {self.measure.value} on {self.samples} samples", rows)


@changes(Effect.INSPECTS)
@stage(__name__, "measure sensitivity")
@float32_by_default()
def measure_sensitivity(
    prepared: PreparedModel,
    data: Data,
    *,
    weight_bits: Sequence[int] = (2, 3, 4, 6, 8),
    activation_bits: Sequence[int] = (),
    measure: Measure | str = Measure.OUTPUT_KL,
    progress: Progress = without_progress,
) -> Sensitivities:
    """Returns the error of the outputs for each tensor and width, with only this tensor quantized.

    All other tensors stay in float. The model's recipe decides how a width's range is chosen; MSE
    observers (recipe `w4a8`) suit few bits. The inputs and outputs of the model, and tensors that
    the recipe lists in `keep`, are not measured.

    Args:
        prepared: the prepared model, which is not changed.
        data: the data, as for `calibrate`.
        weight_bits: the candidate widths of weights, 2 to 16; empty to measure no weights.
        activation_bits: the candidate widths of activations, 2 to 16; empty to measure none.
        measure: the measure of the error.
        progress: shows how many batches are done; `photomask.report.show_progress` draws a bar.

    Raises:
        DataError: there are no data, or they do not fit the model.
        OrderError: the weights are rounded already.
        RecipeError: a quantizer cannot have a width.
        UsageError: there is nothing to measure, or the measure does not apply.
    """
    measure = Measure(measure)
    weights, activations = _widths(weight_bits), _widths(activation_bits)
    if measure is Measure.HESSIAN and activations:
        raise UsageError(
            "the measure 'hessian' is for weights only; measure activations by 'output_kl' or "
            "'output_mse'"
        )
    graph = current_graph(prepared)
    if measure is not Measure.OUTPUT_MSE:
        _check_outputs(graph, measure)
    batches = list(batches_of(prepared, data))
    if not batches:
        raise DataError("measuring sensitivities needs at least one sample, but there is none")
    with torch.no_grad():
        trials = _weight_trials(prepared, weights) if weights else []
        if activations:
            trials += _activation_trials(prepared, graph, activations, batches)
        if not trials:
            raise UsageError(
                "there is no tensor to measure: the recipe lists all in `keep`, or no candidate "
                "widths were given; set weight_bits or activation_bits"
            )
    if measure is Measure.HESSIAN:
        errors = _second_order(graph, trials, batches)
    else:
        errors = _replay(graph, trials, progress(batches, "measuring sensitivities"), measure)
    return Sensitivities(
        measure=measure,
        samples=sum(len(inputs[0]) for inputs in batches),
        tensors=tuple(
            Sensitivity(site=trial.node.name, role=trial.role, bits=trial.bits, errors=found)
            for trial, found in zip(trials, errors, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Trial:
    """A tensor with a fitted quantizer for each width, and the quantized weights if it is one."""

    node: Node
    role: Role
    bits: tuple[int, ...]
    quantizers: tuple[Quantizer, ...]
    weights: tuple[Tensor, ...] = ()
    places: frozenset[str] = frozenset()
    """The names of the nodes that have the weight."""


def _widths(bits: Sequence[int]) -> tuple[int, ...]:
    if len(set(bits)) != len(bits):
        raise UsageError(f"the candidate widths must differ from each other, found {list(bits)}")
    return tuple(sorted(bits))


def current_graph(prepared: PreparedModel) -> FloatGraph:
    """Returns the float graph with the current weights of the prepared model."""
    graph = prepared.graph
    constants = {
        name: prepared.constants_of(node)[role].detach()
        for node in graph.nodes
        for role, name in node.constants.items()
    }
    return FloatGraph(graph.nodes, graph.outputs, constants)


def _check_outputs(graph: FloatGraph, measure: Measure) -> None:
    for name in graph.outputs:
        if (shape := graph.by_name[name].shape)[-1] < 2:
            raise UsageError(
                f"the measure {measure.value!r} compares probabilities along the last axis, but "
                f"the output {name!r} has shape {list(shape)}; use the measure 'output_mse'"
            )


def _fitted(template: Quantizer, bits: int, where: str) -> Quantizer:
    """Returns a quantizer of another width, fitted to the values that the template observed."""
    quantizer = with_bits(template, bits)
    quantizer.fit()
    if quantizer.format.bits != bits:
        raise RecipeError(
            f"{where}: {type(quantizer).__name__} has {quantizer.format.bits} bits although "
            f"{bits} were asked for, so its width cannot be searched; add it to the recipe's `keep`"
        )
    return quantizer


def _weight_trials(prepared: PreparedModel, widths: tuple[int, ...]) -> list[_Trial]:
    nodes, templates = prepared.graph.by_name, prepared.recipe.resolve(prepared.sites)
    trials = []
    for site in open_sites(prepared):
        template = templates[site.name].weight
        if template is None or prepared.weight_owner(site.name) != site.name:
            continue
        weight = prepared.constants_of(nodes[site.name])["weight"].detach()
        template.to(weight.device).observe(weight)
        found = tuple(_fitted(template, bits, f"weight of {site.name!r}") for bits in widths)
        quantized = tuple(quantizer.eval()(weight) for quantizer in found)
        places = frozenset(
            name
            for name, node in nodes.items()
            if "weight" in node.constants and prepared.weight_owner(name) == site.name
        )
        trials.append(_Trial(nodes[site.name], "weight", widths, found, quantized, places))
    return trials


def _activation_trials(
    prepared: PreparedModel,
    graph: FloatGraph,
    widths: tuple[int, ...],
    batches: list[list[Tensor]],
) -> list[_Trial]:
    nodes, templates = prepared.graph.by_name, prepared.recipe.resolve(prepared.sites)
    names = [
        site.name
        for site in open_sites(prepared)
        if not site.is_output and not isinstance(nodes[site.name].operation, Input)
    ]
    for inputs in batches:
        for node, value in graph.run(inputs):
            if node.name in names:
                templates[node.name].activation.to(value.device).observe(value)
    return [
        _Trial(
            nodes[name],
            "activation",
            widths,
            tuple(
                _fitted(templates[name].activation, bits, f"output of {name!r}").eval()
                for bits in widths
            ),
        )
        for name in names
    ]


def _second_order(
    graph: FloatGraph, trials: list[_Trial], batches: list[list[Tensor]]
) -> list[tuple[float, ...]]:
    """Returns `trace / n * sum (w - w_q)**2 / 2` for every width of every trial."""
    traces = hessian_traces(graph, [trial.node for trial in trials], batches)
    found = []
    for trial in trials:
        weight = graph.constants_of(trial.node)["weight"]
        mean = max(0.0, traces[trial.node.name]) / weight.numel()
        found.append(
            tuple(
                mean * float((weight - changed).double().square().sum()) / 2
                for changed in trial.weights
            )
        )
    return found


def _replay(
    graph: FloatGraph, trials: list[_Trial], batches: Iterable[list[Tensor]], measure: Measure
) -> list[tuple[float, ...]]:
    """Returns the error of the outputs for every width of every trial.

    Only nodes that depend on the quantized tensor are computed again.
    """
    behind = {trial.node.name: _behind(graph, trial) for trial in trials}
    sums = [[[0.0] * len(graph.outputs) for _ in trial.bits] for trial in trials]
    scale = [0.0] * len(graph.outputs)
    with torch.no_grad():
        for inputs in batches:
            values = {node.name: value for node, value in graph.run(inputs)}
            for position, name in enumerate(graph.outputs):
                scale[position] += _weight_of(values[name], measure)
            for trial, found in zip(trials, sums, strict=True):
                for option, per_output in enumerate(found):
                    changed = _changed(graph, trial, option, values, behind[trial.node.name])
                    for position, name in enumerate(graph.outputs):
                        if name in changed:
                            per_output[position] += _error(values[name], changed[name], measure)
    return [
        tuple(
            sum(part / whole for part, whole in zip(option, scale, strict=True) if whole)
            for option in found
        )
        for found in sums
    ]


def _behind(graph: FloatGraph, trial: _Trial) -> list[Node]:
    """Returns the nodes after a trial's node that it affects, in the order of computation."""
    start = trial.node.name
    places = trial.places - {start}
    reached = {start}
    found = []
    for node in graph.nodes:
        if node.name in places or any(name in reached for name in node.inputs):
            reached.add(node.name)
            found.append(node)
    return found


def _changed(
    graph: FloatGraph, trial: _Trial, option: int, values: dict[str, Tensor], behind: list[Node]
) -> dict[str, Tensor]:
    """Returns the values of all edges that a trial's tensor affects, for one of its widths."""
    node = trial.node
    if trial.role == "weight":
        constants = {**graph.constants_of(node), "weight": trial.weights[option]}
        result = compute(node, [values[name] for name in node.inputs], constants)
    else:
        result = trial.quantizers[option](values[node.name])
    found = {node.name: result}
    for after in behind:
        operands = [found.get(name, values[name]) for name in after.inputs]
        constants = graph.constants_of(after)
        if after.name in trial.places:
            constants["weight"] = trial.quantizers[option].eval()(constants["weight"])
        found[after.name] = compute(after, operands, constants)
    return found


def _weight_of(y: Tensor, measure: Measure) -> float:
    """Returns a batch's contribution to the divisor of the errors, which batches sum up."""
    if measure is Measure.OUTPUT_MSE:
        return float(y.double().square().sum())
    return float(y.numel() // y.shape[-1])


def _error(y: Tensor, changed: Tensor, measure: Measure) -> float:
    y, changed = y.double(), changed.double()
    if measure is Measure.OUTPUT_MSE:
        return float((y - changed).square().sum())
    expected, found = y.log_softmax(dim=-1), changed.log_softmax(dim=-1)
    return max(0.0, float((expected.exp() * (expected - found)).sum()))

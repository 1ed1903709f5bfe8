"""Which layer costs the accuracy: each layer quantized alone, and each alone left in float."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from photomask.chip.calibration import input_forms
from photomask.chip.data import Data, read_samples
from photomask.chip.default_dtype import float32_by_default
from photomask.chip.graph import Node
from photomask.chip.graph.float_graph import compute
from photomask.chip.graph.operations import Input
from photomask.chip.labels import class_labels
from photomask.chip.prepared_model import PreparedModel
from photomask.chip.standing import Effect
from photomask.chip.verification.outputs import is_classes, split
from photomask.documents import Document
from photomask.errors import DataError
from photomask.report import (
    SQNR_LIMIT_DB,
    NoiseMeter,
    Progress,
    Shown,
    Table,
    Top1Meter,
    without_progress,
)


class OutputQuality(Document):
    """The model's outputs with some layers quantized, against those with none.

    Attributes:
        sqnr_db: signal over noise; of several outputs, the mean of noise over signal counts.
        agreement: percentage of samples in the same class as without quantization; None where the
            first output is not [batch, classes].
        top1: percentage of labelled samples in the right class; None without labels.
    """

    sqnr_db: float
    agreement: float | None
    top1: float | None


class LayerSensitivity(Document):
    """What the quantization of one layer does to the outputs.

    Attributes:
        layer: the node of the float graph.
        operator: what it does.
        source: file and line of the model's code.
        alone: this layer is quantized and no other one.
        others: all layers but this one are quantized.
    """

    layer: str
    operator: str
    source: str
    alone: OutputQuality
    others: OutputQuality


class LayerSensitivities(Shown, Document):
    """The layers of a prepared model, the one first that costs most when it is quantized alone.

    Attributes:
        samples: how many were measured on.
        quantized: the outputs with all layers quantized.
        float_top1: percentage of labelled samples that the model without quantization puts in the
            right class; None without labels.
        layers: worst first.
    """

    schema_version: Literal[1] = 1
    samples: int = Field(ge=1)
    quantized: OutputQuality
    float_top1: float | None
    layers: tuple[LayerSensitivity, ...]

    def shown(self) -> Table:
        """Returns a row for each layer, worst first."""
        title = (
            f"Sensitivity by layer on {self.samples:,} samples; all layers quantized: "
            f"{_words(self.quantized)}"
        )
        rows = [("layer", "operator", "quantized alone", "alone in float", "gain")]
        for found in self.layers:
            gain = found.others.sqnr_db - self.quantized.sqnr_db
            rows.append(
                (
                    found.layer,
                    found.operator,
                    _words(found.alone),
                    _words(found.others),
                    f"{gain:+.1f} dB",
                )
            )
        return Table(title, rows)


def _words(found: OutputQuality) -> str:
    parts = ["exact" if found.sqnr_db >= SQNR_LIMIT_DB else f"{found.sqnr_db:.1f} dB"]
    if found.agreement is not None:
        parts.append(f"{found.agreement:.1f} % same class")
    if found.top1 is not None:
        parts.append(f"top-1 {found.top1:.1f} %")
    return ", ".join(parts)


@float32_by_default()
def measure_layer_sensitivity(
    prepared: PreparedModel,
    data: Data,
    labels: Any = None,
    *,
    progress: Progress = without_progress,
) -> LayerSensitivities:
    """Measures what the quantization of each layer does to the outputs of the model.

    Each layer is quantized alone, with all others in float, and left alone in float, with all
    others quantized. The first tells which layer is hard to quantize; the second tells what a layer
    in float, or with more bits, would give back. A layer is a node of the graph whose result is
    rounded to codes; its weight, its bias and its result are quantized together. The reference is
    the prepared model without quantization, with the weights that it has now.

    The cost is two passes for each layer, of which only what depends on the layer is computed. The
    measurement is by fake quantization in float32, so the rounding of multipliers is left out.

    Args:
        prepared: calibrated; not changed. Its weights are not yet rounded to codes.
        data: samples at axis 0, in any form that `photomask.chip.data` describes. A few dozen are
            enough to rank layers.
        labels: the right classes, integers [samples], of the first output. Where None, those that
            came with the data.
        progress: shows how many layers of how many batches are done.

    Raises:
        OrderError: the model is not calibrated, its weights are rounded to codes already, or batch
            norms are kept beside its layers.
        DataError: data or labels that do not fit the model, or none.

    Source: the per-layer analysis of AIMET's QuantAnalyzer, which enables and disables the
    quantizers of one layer at a time.
    """
    for effect in (Effect.READS, Effect.INSPECTS):
        prepared.standing.demand("measure_layer_sensitivity", effect, prepared)
    model = copy.deepcopy(prepared).float().eval()
    forms = input_forms(model.graph, model.device)
    batch = read_samples(forms, data, what="data")
    classes = _classes(model, batch.labels if labels is None else labels, len(batch.inputs[0]))
    with torch.no_grad():
        return _Measurement(model).run(split(batch.inputs), classes, progress)


def _classes(model: PreparedModel, labels: Any, samples: int) -> Tensor | None:
    """Returns the right classes of the first output, checked."""
    if labels is None:
        return None
    name = model.graph.outputs[0]
    shape = model.graph.by_name[name].shape
    if not is_classes(shape):
        raise DataError(f"output {name!r} of shape {list(shape)} has no classes to be right")
    what = f"labels of output {name!r}"
    return class_labels(labels, shape[1:], samples, what).to(model.device)


@dataclass
class _Meter:
    """Compares outputs with those of the model in float, batch by batch."""

    noise: list[NoiseMeter] = field(default_factory=list)
    top1: Top1Meter = field(default_factory=Top1Meter)

    def add(self, expected: Sequence[Tensor], found: Sequence[Tensor], labels: Tensor | None):
        """Counts a batch."""
        self.noise = self.noise or [NoiseMeter() for _ in expected]
        for meter, reference, value in zip(self.noise, expected, found, strict=True):
            meter.add(reference, value)
        if is_classes(tuple(expected[0].shape)):
            self.top1.add(expected[0], found[0], labels)

    @property
    def quality(self) -> OutputQuality:
        """What all batches came to."""
        parts = [meter for meter in self.noise if meter.signal or meter.noise]
        ratios = [m.noise / m.signal if m.signal else float("inf") for m in parts]
        return OutputQuality(
            sqnr_db=NoiseMeter(float(len(ratios)), sum(ratios)).sqnr_db,
            agreement=self.top1.agreement if self.top1.samples else None,
            top1=self.top1.found_top1,
        )


class _Measurement:
    """Runs a prepared model with any choice of layers quantized."""

    def __init__(self, model: PreparedModel):
        self.model = model
        nodes = model.graph.nodes
        self.layers = [n for n in nodes if n.operation.is_quantized or "weight" in n.constants]
        self.behind = {node.name: self._behind(node) for node in self.layers}
        self.exact = {node.name: model.constants_of(node) for node in nodes}
        self.rounded = {node.name: model.quantized_constants_of(node) for node in nodes}

    def run(
        self, batches: Sequence[list[Tensor]], labels: Tensor | None, progress: Progress
    ) -> LayerSensitivities:
        """Measures every layer on every batch."""
        alone = {node.name: _Meter() for node in self.layers}
        others = {node.name: _Meter() for node in self.layers}
        everything = _Meter()
        pairs = [(batch, node) for batch in batches for node in self.layers]
        done = 0
        current: list[Tensor] = []
        classes: Tensor | None = None
        plain: dict[str, Tensor] = {}
        coded: dict[str, Tensor] = {}
        for batch, node in progress(pairs, "measuring the sensitivity of layers"):
            if batch is not current:
                plain, coded = self._values(batch, quantized=False), self._values(batch, True)
                classes = None if labels is None else labels[done : done + len(batch[0])]
                done += len(batch[0])
                current = batch
                everything.add(self._outputs(plain), self._outputs(coded), classes)
            for meters, values, quantized in ((alone, plain, True), (others, coded, False)):
                changed = self._changed(node, batch, values, quantized=quantized)
                found = self._outputs(values | changed)
                meters[node.name].add(self._outputs(plain), found, classes)
        found = [
            LayerSensitivity(
                layer=node.name,
                operator=node.operation.kind,
                source=node.source,
                alone=alone[node.name].quality,
                others=others[node.name].quality,
            )
            for node in self.layers
        ]
        return LayerSensitivities(
            samples=done,
            quantized=everything.quality,
            float_top1=everything.top1.reference_top1,
            layers=tuple(sorted(found, key=lambda layer: layer.alone.sqnr_db)),
        )

    def _behind(self, start: Node) -> list[Node]:
        """Returns the nodes that depend on a layer, in the order of computation."""
        reached = {start.name}
        found = []
        for node in self.model.graph.nodes:
            if reached.intersection(node.inputs):
                reached.add(node.name)
                found.append(node)
        return found

    def _outputs(self, values: dict[str, Tensor]) -> list[Tensor]:
        return [values[name] for name in self.model.graph.outputs]

    def _values(self, batch: Sequence[Tensor], quantized: bool) -> dict[str, Tensor]:
        """Returns every edge, with all layers quantized or none."""
        values: dict[str, Tensor] = {}
        given = self._given(batch)
        for node in self.model.graph.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.name] = self._compute(node, operands, given, quantized)
        return values

    def _changed(
        self, layer: Node, batch: Sequence[Tensor], values: dict[str, Tensor], *, quantized: bool
    ) -> dict[str, Tensor]:
        """Returns the edges that differ once one layer is quantized, or once it is not.

        Args:
            layer: computed otherwise than all that depends on it.
            batch: the inputs of the model.
            values: every edge as it is without the change.
            quantized: whether the layer is; the others are if it is not.
        """
        given, found = self._given(batch), dict[str, Tensor]()
        for node in (layer, *self.behind[layer.name]):
            operands = [found[n] if n in found else values[n] for n in node.inputs]
            own = quantized if node is layer else not quantized
            found[node.name] = self._compute(node, operands, given, own)
        return found

    def _given(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.model.graph.inputs, batch, strict=True))

    def _compute(
        self, node: Node, operands: list[Tensor], given: dict[str, Tensor], quantized: bool
    ) -> Tensor:
        """Returns the value of one edge."""
        if isinstance(node.operation, Input):
            value = given[node.name]
        elif quantized:
            value = self.model.compute(node, operands, self.rounded[node.name])
        else:
            value = compute(node, operands, self.exact[node.name])
        return self.model.settle(node, value) if quantized else value

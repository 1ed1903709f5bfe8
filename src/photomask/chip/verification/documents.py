"""What verification asks, and the parts of what it finds, as strict documents."""

from typing import Literal

from pydantic import Field

from photomask.chip.formats import IntFormat
from photomask.documents import Document

Percentage = Field(ge=0, le=100)


class Thresholds(Document):
    """When a program counts as a faithful copy of its model; None leaves a condition out.

    Not to be chosen: the engines agree in every integer, and every step is the one that the model
    and the scales of the program's edges call for.
    """

    schema_version: Literal[1] = 1
    min_top1_agreement: float | None = Field(default=90.0, ge=0, le=100)
    """Percentage of samples that model and program put in the same class; with labels only."""
    max_accuracy_drop: float | None = Field(default=1.0, ge=-100, le=100)
    """Percentage points of top-1 accuracy that may be lost; with labels only."""
    min_output_sqnr_db: float | None = 10.0
    """Signal over noise of every output."""
    min_layer_sqnr_db: float | None = None
    """Signal over noise of every layer's output."""
    max_saturation: float | None = Field(default=None, ge=0, le=100)
    """Percentage of a layer's outputs that its format cuts off."""
    max_stray_parameters: int | None = Field(default=0, ge=0)
    """Weights, biases, gains and elements of constants that are not the model's own, rounded, in a
    node where the others are; None for a program whose parameters were trained further."""


class OutputReport(Document):
    """One output of the program beside the model's, over all samples."""

    name: str
    sqnr_db: float
    float_top1: float | None
    """Percent; None without labels."""
    integer_top1: float | None
    agreement: float | None
    """Percentage of samples in the same class; None where the output is not [batch, classes]."""


class SampleReport(Document):
    """One sample in the first output, as the float model and the program see it."""

    index: int
    """Its place in the data, from 0."""
    sqnr_db: float
    """Of this sample's output alone."""
    label: int | None
    """The right class; None without labels."""
    float_class: int | None
    """None where the output is not [batch, classes]."""
    integer_class: int | None
    picture: str | None
    """The input as a PNG file in base64; None unless it is a picture of at most 64 × 64 pixels."""

    @property
    def same_class(self) -> bool:
        """Whether program and float model agree, or there are no classes to agree on."""
        return self.float_class == self.integer_class


class EngineReport(Document):
    """The torch engine beside the NumPy oracle, on every edge."""

    samples: int
    edges: int
    integers: int
    """How many were compared."""
    mismatches: int
    first_mismatch: str | None


class WeightReport(Document):
    """Integer weights against their format and against the model's weights."""

    format: IntFormat
    low: int
    high: int
    histogram: tuple[int, ...]
    """Counts in equal parts of the format's range."""
    stray_weights: int | None
    """None: the layer's weights are not the model's own, rounded, so that none stands out."""
    stray_biases: int | None


class AccumulatorReport(Document):
    """What an accumulator must hold and what it did hold."""

    proven_bits: int
    observed_bits: int
    low: int
    high: int
    """Observed."""


class Statistics(Document):
    """Real values of one edge over all samples that were looked at."""

    low: float
    high: float
    mean: float
    deviation: float
    """Standard deviation."""


class ChannelReport(Document):
    """The output channels of a layer with weights, one entry for each channel."""

    weight_scale: tuple[float, ...]
    """Real value of one unit of the weight; that of the channel's groups is a multiple of it."""
    weight_low: tuple[int, ...]
    """The smallest integer weight."""
    weight_high: tuple[int, ...]
    sqnr_db: tuple[float, ...]
    """Of the layer's output, after its fused clamp."""
    saturated: tuple[float, ...]
    """Percentage of outputs that the format cuts off."""
    constant: tuple[int, ...]
    """Channels whose integer was the same at every place of every sample: dead channels."""


class LayerReport(Document):
    """One node of the float model: its output and what computes it."""

    node: str
    operator: str
    source: str
    shape: tuple[int, ...]
    """Of one sample."""
    format: IntFormat
    sqnr_db: float
    represented: tuple[float, float]
    """Real values of the format's ends."""
    observed: tuple[float, float]
    """Real values in the float model."""
    codes: tuple[int, int]
    """Smallest and largest integer observed."""
    elements: int
    saturated_low: int
    """Integers at the format's lower end whose float value lies beyond it."""
    saturated_high: int
    histogram: tuple[int, ...]
    """Counts of float values in equal parts from 1/8 of the range below it to 1/8 above."""
    weight: WeightReport | None
    accumulator: AccumulatorReport | None
    multiplier_error: float | None
    """Largest relative error of a rescaling multiplier; None where nothing is rescaled."""
    wrong_rescalings: int
    """Multipliers, shifts, coefficients, offsets, bounds and claims of rescalings and additions
    that the model and the scales do not call for."""
    wrong_values: int = 0
    """The same of all other steps: attributes, tables, what edges mean; steps missing or added."""
    stray_constants: int = 0
    """Gains and biases of norms, and elements of tables and constants, that are not the model's own
    where the others are."""
    multiply_accumulates: int
    parameters: int
    """Numbers that the model has too: weights, biases, gains of norms, embeddings, constants."""
    bytes: float
    """Of all constants, at their true widths."""
    float_values: Statistics | None = None
    """Of the float model; None in reports of version 0.1."""
    integer_values: Statistics | None = None
    """Of the program's integers as real values; None in reports of version 0.1."""
    channels: ChannelReport | None = None
    """None for layers without weights, and in reports of version 0.1."""

    @property
    def saturation(self) -> float:
        """Percentage of outputs cut off."""
        return 100 * (self.saturated_low + self.saturated_high) / max(1, self.elements)


class TotalsReport(Document):
    """The whole program."""

    parameters: int
    """Numbers that the model has too: weights, biases, gains of norms, embeddings, constants."""
    float_bytes: float
    """Those of the model as float32."""
    weight_bytes: float
    """Those of the program, packed at their true widths."""
    integer_bytes: float
    """All constants, rescaling and tables included, packed at their true widths."""
    multiply_accumulates: int
    """For one sample."""


class MultiplierCost(Document):
    """The same program with rescaling multipliers of another width."""

    bits: int
    chosen: bool
    """Whether the program has this width."""
    problem: str | None
    """Why there is no such program; the other fields are then None."""
    relative_error: float | None
    """Largest of all multipliers."""
    outputs_changed: float | None
    """Percentage of output integers that are not those of the widest multiplier."""
    activations_changed: float | None
    """The same of all activations."""
    largest_difference: int | None
    """Between activations that are no outputs, in units of the last bit."""
    output_sqnr_db: float | None
    """Of the first output against the float model."""
    agreement: float | None
    """Percentage of samples in the float model's class."""
    top1: float | None
    """Percent, with labels."""


class MultiplierStudy(Document):
    """What a narrower multiplier costs."""

    samples: int
    reference_bits: int
    """The widest that was possible; the others are compared with it."""
    costs: tuple[MultiplierCost, ...]

"""The target: which integers the hardware can compute, as a strict, versioned document.

The presets describe the numerics of real executors. They are contracts about numbers (rounding,
widths, zero points, memory words) and say nothing about speed.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from photomask.documents import Document, file_of_name, read_text
from photomask.errors import TargetError
from photomask.report import Shown, Table, table_of_fields


class Rounding(StrEnum):
    """The way in which `x / 2**shift` becomes an integer."""

    HALF_UP = "half_up"
    """`floor(v + 1/2)`: adds half and shifts right. It is the cheapest mode in hardware."""
    HALF_EVEN = "half_even"
    """Rounds to the nearest integer, and ties to the even neighbour (IEEE 754 and ONNX)."""
    HALF_AWAY = "half_away"
    """Rounds to the nearest integer, and ties away from zero."""
    TRUNCATE = "truncate"
    """Drops the low bits: `floor(v)` in two's complement."""
    DOUBLE = "double"
    """TOSA 1.0 `apply_scale_32` with `double_round`: half up, after a first rounding at bit 31."""


class ZeroPoints(StrEnum):
    """Which tensors may have a zero point other than 0."""

    NONE = "none"
    ACTIVATIONS = "activations"
    ALL = "all"


class Target(Shown, Document):
    """The numeric contract between the integer program and the hardware."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    rounding: Rounding = Rounding.HALF_UP
    multiplier_bits: int = Field(default=16, ge=4, le=31)
    """The magnitude bits of the requantization multiplier, which is never negative."""
    shift_min: int = Field(default=0, ge=0, le=62)
    shift_max: int = Field(default=47, ge=0, le=62)
    """The largest right shift that the requantizer can do; `shift_min` is the smallest."""
    per_channel_shift: bool = True
    """If False, all channels of an operator share one shift."""
    power_of_two_only: bool = False
    """If True, requantization is only a shift, and its multiplier is 1.

    Averages still divide by their count with one multiplication and a shift, because the pooling
    unit of such hardware has a divider.
    """
    accumulator_bits: int = Field(default=32, ge=8, le=48)
    bias_bits: int = Field(default=32, ge=4, le=48)
    weight_bits: tuple[int, ...] = tuple(range(2, 17))
    activation_bits: tuple[int, ...] = tuple(range(2, 17))
    unsigned_activations: bool = True
    zero_points: ZeroPoints = ZeroPoints.ACTIVATIONS
    table_entries: int = Field(default=1 << 16, ge=2, le=1 << 16)
    """The most entries of a function's table, without the extra entry that interpolation needs.

    If a function has more codes, it is interpolated between entries at distances of a power of two.
    """
    memory_word_bits: int = Field(default=32, ge=8, le=1024)
    first_lane: Literal["least_significant", "most_significant"] = "least_significant"
    """The end of a memory word at which its first element lies."""
    activation_layout: Literal["channels_first", "channels_last"] = "channels_first"
    weight_layout: Literal["output_input_kernel", "output_kernel_input", "kernel_input_output"] = (
        "output_input_kernel"
    )
    """The element order of weight images: OIHW, OHWI or HWIO for a two-dimensional convolution."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Target":
        if self.shift_min > self.shift_max:
            raise ValueError(f"shift_min {self.shift_min} is above shift_max {self.shift_max}")
        if self.accumulator_bits + self.multiplier_bits > 63:
            raise ValueError(
                f"accumulator_bits {self.accumulator_bits} + multiplier_bits "
                f"{self.multiplier_bits} exceeds 63, so product and rounding would not fit 64 bits"
            )
        for field in ("weight_bits", "activation_bits"):
            widths = getattr(self, field)
            if not widths or min(widths) < 1 or max(widths) > 16:
                raise ValueError(
                    f"{field} {widths} must list at least one width, and all widths must lie "
                    "between 1 and 16"
                )
        return self

    def shown(self) -> Table:
        """Returns a row for each field."""
        return table_of_fields(f"target {self.name!r}", self)


_PRESETS = (
    (
        "An ASIC or FPGA of your own: rounds half up, 16-bit multipliers, 32-bit sums.",
        Target(name="asic"),
    ),
    # ONNX Runtime multiplies by a float32 scale, a 24-bit significand, and rounds to even.
    (
        "The numbers of ONNX Runtime on a CPU: 24-bit multipliers, ties to even.",
        Target(name="onnxruntime", rounding=Rounding.HALF_EVEN, multiplier_bits=24),
    ),
    (
        "TFLite and TOSA: 31-bit multipliers that round twice, signed activations.",
        Target(
            name="tflite",
            rounding=Rounding.DOUBLE,
            multiplier_bits=31,
            shift_min=2,
            shift_max=62,
            weight_bits=(4, 8),
            activation_bits=(8, 16),
            unsigned_activations=False,
            weight_layout="output_kernel_input",
            activation_layout="channels_last",
        ),
    ),
    # RequantShift has one power-of-two divisor per operator and rounds half up.
    (
        "Deeploy's RequantShift: one shift for each operator, no zero points.",
        Target(
            name="deeploy",
            rounding=Rounding.HALF_UP,
            multiplier_bits=16,
            per_channel_shift=False,
            activation_bits=(8, 16),
            zero_points=ZeroPoints.NONE,
        ),
    ),
    # MAX7800x: power-of-two scales, floor(x + 0.5), weights of 1, 2, 4 or 8 bits.
    (
        "MAX78000 and MAX78002: scales are powers of two, signed activations.",
        Target(
            name="max78000",
            rounding=Rounding.HALF_UP,
            power_of_two_only=True,
            per_channel_shift=False,
            weight_bits=(1, 2, 4, 8),
            activation_bits=(8, 16),
            unsigned_activations=False,
            zero_points=ZeroPoints.NONE,
        ),
    ),
)
"""The purpose of each target, and the target itself."""

PRESETS: dict[str, Target] = {target.name: target for _, target in _PRESETS}
"""Targets by the name that `load_target` takes."""

PURPOSES: dict[str, str] = {target.name: purpose for purpose, target in _PRESETS}
"""What each target is for, in a sentence, by its name."""


def load_target(name_or_path: str | Path | Target) -> Target:
    """Returns a preset by its name, or reads a target from a JSON file.

    Args:
        name_or_path: the name of a preset, the path of a file, or a target, which is returned
            unchanged.

    Raises:
        TargetError: there is neither a preset nor a file of that name.
        DocumentError: the file is not a valid target.
    """
    if isinstance(name_or_path, Target):
        return name_or_path
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = file_of_name(name_or_path, "target", PRESETS, TargetError)
    return Target.parse(read_text(path), str(path))

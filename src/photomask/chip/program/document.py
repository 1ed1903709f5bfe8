"""The content of `program.json`: edges, steps and the records of constant tensors."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.operators import AnyOperator
from photomask.chip.target import Target
from photomask.documents import Document


class Edge(Document):
    """A tensor between steps: the integers that it can hold and their real meaning.

    The meaning is only for interpretation; no integer depends on it.
    """

    name: str
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 40)], ...] = Field(min_length=1)
    """The shape of one sample, including the batch axis, which is usually 1."""
    format: IntFormat
    low: int
    high: int
    """The proven ends of the values and, for accumulators, of the partial sums."""
    scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    """The real value of one unit: one number, or one for each channel of `channel_axis`."""
    zero_point: int
    channel_axis: int | None = None
    role: Literal["input", "accumulator", "activation"]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.low > self.high or not self.interval.within(self.format.interval):
            raise ValueError(f"{self.low} to {self.high} is not an interval of {self.format}")
        channels = 1
        if self.channel_axis is not None:
            if not 0 < self.channel_axis < len(self.shape):
                raise ValueError(
                    f"the channel_axis {self.channel_axis} is not an axis of the shape "
                    f"{self.shape} behind the batch"
                )
            channels = self.shape[self.channel_axis]
        if len(self.scale) not in (1, channels):
            raise ValueError(
                f"found {len(self.scale)} scales, expected 1 or one for each of {channels} channels"
            )
        return self

    @property
    def interval(self) -> Interval:
        """The interval from `low` to `high`."""
        return Interval(self.low, self.high)

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns `(codes - zero_point) * scale` in float64."""
        scale = torch.tensor(self.scale, dtype=torch.float64, device=codes.device)
        if self.channel_axis is not None and len(self.scale) > 1:
            scale = scale.reshape(-1, *(1,) * (len(self.shape) - 1 - self.channel_axis))
        return (codes.to(torch.float64) - self.zero_point) * scale


class Step(Document):
    """One operator applied to edges."""

    name: str
    operator: AnyOperator
    inputs: tuple[str, ...]
    output: str
    tensors: dict[str, str] = Field(default_factory=dict)
    """The names of constant tensors by the operator's parameter roles."""
    node: str
    """The node of the float model that this step computes, or helps to compute."""
    source: str
    """The file and line of the model's code."""
    relative_error: float = 0.0
    """A bound of the relative error of a requantization's multipliers."""
    worst_error: float | None = None
    """The largest error of a function that was computed by tables.

    It is the largest distance of the result from the real function of the input's codes, in units
    of the result. It is None if the step is not the last step of such a function.
    """
    divisors: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """The numbers by which a rescaling divides the sum that it reads, as part of its multipliers.

    There is one number, or one for each multiplier if windows differ in size. It is None if the
    step reads no such sum, and in programs of versions that did not record it.
    """

    @model_serializer(mode="wrap")
    def _without_absent_divisors(self, render: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out divisors that are None, so that older programs keep their hash."""
        document = render(self)
        if self.divisors is None:
            del document["divisors"]
        return document


class TensorRecord(Document):
    """A constant tensor: its actual integer format and the hash of its values."""

    format: IntFormat
    shape: tuple[int, ...]
    sha256: str


class ProgramDocument(Document):
    """The content of `program.json`."""

    schema_version: Literal[1] = 1
    target: Target
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    edges: tuple[Edge, ...]
    steps: tuple[Step, ...]
    tensors: dict[str, TensorRecord]
    provenance: dict[str, str]
    content_sha256: str

"""What `program.json` holds: edges, steps and the records of constant tensors."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from photomask.chip.formats import Interval, IntFormat
from photomask.chip.operators import AnyOperator
from photomask.chip.target import Target
from photomask.documents import Document


class Edge(Document):
    """A tensor that flows: what it can hold and, for interpretation only, what it means."""

    name: str
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 40)], ...] = Field(min_length=1)
    """One sample's, the batch axis (1) included."""
    format: IntFormat
    low: int
    high: int
    """The values, and in accumulators the partial sums, proven to occur at most."""
    scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    """Real value of one unit: one number, or one for each channel of `channel_axis`."""
    zero_point: int
    channel_axis: int | None = None
    role: Literal["input", "accumulator", "activation"]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.low > self.high or not self.interval.within(self.format.interval):
            raise ValueError(f"{self.low} to {self.high} is no interval of {self.format}")
        channels = 1
        if self.channel_axis is not None:
            if not 0 < self.channel_axis < len(self.shape):
                raise ValueError(f"channel_axis {self.channel_axis} of shape {self.shape}")
            channels = self.shape[self.channel_axis]
        if len(self.scale) not in (1, channels):
            raise ValueError(f"{len(self.scale)} scales for {channels} channels")
        return self

    @property
    def interval(self) -> Interval:
        """From `low` to `high`."""
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
    """Constant tensors by the operator's parameter roles."""
    node: str
    """The node of the float model that this step computes, or helps to compute."""
    source: str
    """File and line of the model's code."""
    relative_error: float = 0.0
    """Bound on the relative error of a requantization's multipliers."""
    worst_error: float | None = None
    """Of a table's result: how far it is at most from the real function of the input's codes, in
    units of the result's last place; None where the step ends no table."""
    divisors: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """By what a rescaling divides the sum that it reads, as part of its multipliers: one number, or
    one for each multiplier where windows differ. None where it reads no such sum, and in programs
    of versions that did not record it."""

    @model_serializer(mode="wrap")
    def _without_absent_divisors(self, render: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out divisors that there are not, so that older programs keep their hash."""
        document = render(self)
        if self.divisors is None:
            del document["divisors"]
        return document


class TensorRecord(Document):
    """A constant tensor: its true integer format and the hash of its values."""

    format: IntFormat
    shape: tuple[int, ...]
    sha256: str


class ProgramDocument(Document):
    """What `program.json` holds."""

    schema_version: Literal[1] = 1
    target: Target
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    edges: tuple[Edge, ...]
    steps: tuple[Step, ...]
    tensors: dict[str, TensorRecord]
    provenance: dict[str, str]
    content_sha256: str

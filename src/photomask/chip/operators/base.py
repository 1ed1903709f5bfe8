"""What every integer operator says about itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from photomask.chip.arithmetic import carrier
from photomask.chip.formats import Interval
from photomask.documents import Document

Shape = tuple[int, ...]
"""Of a tensor, the batch at axis 0."""
Parameters = Mapping[str, np.ndarray]
"""Constant int64 tensors by role."""
TorchFunction = Callable[..., torch.Tensor]
"""What an operator becomes on a device: tensors in carrier dtypes in, one out."""

Int64 = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A number that the hardware and NumPy can hold."""
Extent = Annotated[int, Field(ge=1, le=1 << 20)]
"""Elements along a kernel, a stride, a dilation or an output axis."""
Margin = Annotated[int, Field(ge=0, le=1 << 20)]
"""Elements of padding."""
DataAxis = Annotated[int, Field(ge=1, le=64)]
"""An axis that is not the batch."""


class Operator(Document):
    """One integer operator: a function from integers to integers, with constant parameters.

    Shapes carry the batch at axis 0 and are stated for one sample; engines take any batch.
    Parameters are int64 NumPy arrays by role (`weight`, `bias`, `multiplier`, …).
    """

    parameter_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that must be present."""
    optional_roles: ClassVar[tuple[str, ...]] = ()
    input_count: ClassVar[int | None] = 1
    """How many activations it takes; None for one or more."""

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the output's shape for inputs of these shapes.

        Raises:
            ValueError: the operator cannot run on such inputs with such parameters.
        """
        raise NotImplementedError

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns integers between which the output and every partial sum must lie.

        Holds for any order of summation, so an accumulator of this width never overflows.

        Raises:
            ValueError: the operator cannot run on such values with such parameters.
        """
        raise NotImplementedError

    def run_numpy(self, inputs: Sequence[np.ndarray], parameters: Parameters) -> np.ndarray:
        """The oracle: int64 in, int64 out, written plainly and without the torch code."""
        raise NotImplementedError

    def compile_torch(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the fast implementation for inputs of these intervals.

        Tensors travel in the `carrier` dtype of their interval, which holds them exactly; the
        function returned takes and gives such tensors.
        """
        raise NotImplementedError

    def wrap_oracle(
        self, inputs: Sequence[Interval], parameters: Parameters, device: torch.device
    ) -> TorchFunction:
        """Returns the oracle itself, for sums beyond 2**53, which no float64 holds."""
        dtype = carrier(self.output_interval(inputs, parameters))

        def run(*values: torch.Tensor) -> torch.Tensor:
            arrays = [value.to(torch.int64).cpu().numpy() for value in values]
            return torch.from_numpy(self.run_numpy(arrays, parameters)).to(device, dtype)

        return run

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Multiplications by weights, or between activations, for one sample."""
        return 0


def require(condition: bool, problem: str) -> None:
    """Refuses an operator that cannot run.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(problem)

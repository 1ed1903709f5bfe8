"""What every integer operator says about itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from photomask.chip.formats import Interval
from photomask.documents import Document

Shape = tuple[int, ...]
Parameters = Mapping[str, np.ndarray]
TorchFunction = Callable[..., torch.Tensor]


class Operator(Document):
    """One integer operator: a function from integers to integers, with constant parameters.

    Shapes carry the batch at axis 0 and are stated for one sample; engines take any batch.
    Parameters are int64 NumPy arrays by role (`weight`, `bias`, `multiplier`, …).
    """

    parameter_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that must be present."""
    optional_roles: ClassVar[tuple[str, ...]] = ()

    def output_shape(self, shapes: Sequence[Shape], parameters: Parameters) -> Shape:
        """Returns the output's shape for inputs of these shapes."""
        raise NotImplementedError

    def output_interval(self, inputs: Sequence[Interval], parameters: Parameters) -> Interval:
        """Returns integers between which the output and every partial sum must lie.

        Holds for any order of summation, so an accumulator of this width never overflows.
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

    def multiply_accumulates(self, shapes: Sequence[Shape], parameters: Parameters) -> int:
        """Multiplications by weights, or between activations, for one sample."""
        return 0

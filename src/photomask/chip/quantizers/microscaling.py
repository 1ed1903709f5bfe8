"""MX formats as quantizers, for training and for measuring what they would cost."""

from typing import NoReturn

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.microscaling import ElementFormat, round_to_blocks
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.straight_through import pass_gradient
from photomask.errors import QuantizerError


class Microscaling(Quantizer):
    """Blocks of 32 values along an axis share a power-of-two scale, which follows from the values.

        forward(x) = decode(encode(x)), with the gradient of the identity

    The scale of a block of activations is another for each input, so it cannot be folded into a
    static program: `quantize` and `convert` refuse. Dot products of such blocks run on the integer
    datapath of `photomask.chip.microscaling.dot_product`.

    Args:
        element: the element format, such as `MXFP8_E4M3`.
        axis: along which the products are summed up: 1 for the weights of convolutions and linear
            layers and for the activations of convolutions, -1 for those of linear layers.

    Source: OCP MX specification 1.0; Rouhani et al. 2023, arXiv:2310.10537, for training.
    """

    has_static_scale = False

    def __init__(self, element: ElementFormat, *, axis: int = 1):
        super().__init__(element.bits)
        self.element = element
        self.axis = axis

    def fit(self) -> None:
        """Nothing is decided in advance; checks that data was seen."""
        if self.observer.is_empty:
            raise QuantizerError("nothing was observed: run calibration data through the model")
        one, zero = torch.ones(()), torch.zeros((), dtype=torch.int64)
        self.set_parameters(IntFormat(bits=self.element.bits, signed=True), one, zero)

    @property
    def saw_only_zero(self) -> bool:
        """False: its scales follow from each input anew."""
        return False

    def quantize(self, x: Tensor) -> NoReturn:
        """Refuses: there are no codes with one static scale.

        Raises:
            QuantizerError: always.
        """
        raise QuantizerError(
            f"{self.element} has a scale for each block that follows from the data: there are no "
            "integer codes with a static scale. For bit patterns see photomask.chip.microscaling"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns what `x` becomes in the format; the gradient passes unchanged."""
        value = round_to_blocks(x, self.element, self.axis)
        ends = torch.tensor([-torch.inf, torch.inf], device=x.device)
        return pass_gradient(x, value, ends[0], ends[1])

    def extra_repr(self) -> str:
        """Returns what `print` shows inside the brackets."""
        return f"{self.element}, blocks along axis {self.axis}"

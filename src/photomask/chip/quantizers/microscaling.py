"""Provides MX formats as quantizers, for training and for measuring their accuracy."""

from typing import NoReturn

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.microscaling import ElementFormat, round_to_blocks
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.straight_through import pass_gradient
from photomask.errors import QuantizerError


class Microscaling(Quantizer):
    """Rounds to an MX format: each block of 32 values along an axis has a power-of-two scale.

        forward(x) = decode(encode(x)), with the gradient of the identity

    The scale of a block follows from its values. It differs from input to input, so it cannot be
    part of a static program, and `quantize` and `convert` raise an error. Dot products of such
    blocks run on the integer datapath of `photomask.chip.microscaling.dot_product`.

    Args:
        element: the element format, such as `MXFP8_E4M3`.
        axis: the axis along which products are summed. It is 1 for the weights of convolutions and
            linear layers and for the activations of convolutions, and -1 for the activations of
            linear layers.

    Source: OCP MX specification 1.0; Rouhani et al. 2023, arXiv:2310.10537, for training.
    """

    has_static_scale = False

    def __init__(self, element: ElementFormat, *, axis: int = 1):
        super().__init__(element.bits)
        self.element = element
        self.axis = axis

    def fit(self) -> None:
        """Checks that data was observed; the scales are decided anew for each input."""
        if self.observer.is_empty:
            raise QuantizerError(
                "the quantizer has observed no values; call calibrate(prepared, data) first"
            )
        one, zero = torch.ones(()), torch.zeros((), dtype=torch.int64)
        self.set_parameters(IntFormat(bits=self.element.bits, signed=True), one, zero)

    @property
    def saw_only_zero(self) -> bool:
        """False, because the scales follow from each input anew."""
        return False

    def quantize(self, x: Tensor) -> NoReturn:
        """Raises an error, because there are no codes with a static scale.

        Raises:
            QuantizerError: always.
        """
        raise QuantizerError(
            f"{self.element} has a scale for each block that follows from the data, so there are "
            "no integer codes with a static scale; use photomask.chip.microscaling for bit patterns"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` rounded to the format; the gradient is that of the identity."""
        value = round_to_blocks(x, self.element, self.axis)
        ends = torch.tensor([-torch.inf, torch.inf], device=x.device)
        return pass_gradient(x, value, ends[0], ends[1])

    def extra_repr(self) -> str:
        """Returns the description of the quantizer for `print`."""
        return f"{self.element}, blocks along axis {self.axis}"

"""LSQ+ learns the step size and the offset."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.observers import MSE
from photomask.chip.observers.moments import ThreeSigma
from photomask.chip.quantizers.lsq import LSQ


class LSQPlus(LSQ):
    """Quantizes as LSQ does and also learns the zero point, for values below and above 0.

        z     = clamp(round(-beta / s), code_low, code_high)
        code  = clamp(round(x / s) + z),   value = (code - z) * s
        d value / d s    = round(x / s) - x / s  inside the range;  code_low below;  code_high above
        d value / d beta = 0  inside the range;  1 outside
        d value / d x    = 1  inside the range;  0 outside

    It differs from the source, where `value = code * s + beta` for any real `beta`. Here the offset
    is rounded to a multiple of the step, `-z * s`, so that 0 (padding, the zeros of ReLU) stays
    exact, and the offset is an integer on the chip. The gradients are those of the paper.

    The range starts from the least squared error (`MSE()`). Symmetric quantizers, which are for
    weights, have no offset and start from `mu +- 3 sigma`. The gradients of `s` and `beta` are
    multiplied by the factor of LSQ.

    Attributes:
        offset: the parameter for `beta`, the real value of code 0; None if symmetric.

    Source: Bhalgat et al. 2020, equations 2 to 7 and section 3.2, arXiv:2004.09576.
    """

    offset: nn.Parameter | None

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = ThreeSigma() if self.symmetric else MSE()

    def register_scale(self) -> None:
        """Registers the step and the offset as parameters, and the lower limit of the step."""
        self.step = nn.Parameter(torch.ones(()))
        self.offset = None if self.symmetric else nn.Parameter(torch.zeros(()))
        self.register_buffer("smallest_step", torch.zeros(()))

    @property
    def zero_point(self) -> Tensor:
        """The code of 0, int64: `round(-offset / scale)`, clamped to the codes."""
        if self.offset is None or not self.is_fitted:
            return torch.zeros_like(self.step, dtype=torch.int64)
        codes = self.codes
        position = (-self.offset.detach() / self.scale.detach()).round()
        return position.clamp(codes.low, codes.high).to(torch.int64)

    @zero_point.setter
    def zero_point(self, value: Tensor) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.offset is not None:
            self.offset.data = -value * self.scale.detach()

    def _aligned_offset(self, x: Tensor) -> Tensor | None:
        return None if self.offset is None else self.granularity.align(self.offset, x)

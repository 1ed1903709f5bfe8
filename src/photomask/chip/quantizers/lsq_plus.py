"""LSQ+: step size and offset are learned."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.observers import MSE
from photomask.chip.observers.moments import ThreeSigma
from photomask.chip.quantizers.lsq import LSQ


class LSQPlus(LSQ):
    """LSQ whose zero point is learned as well, for activations below and above 0.

        z     = clamp(round(-beta / s), code_low, code_high)
        code  = clamp(round(x / s) + z),   value = (code - z) * s
        d value / d s    = round(x / s) - x / s  inside the range;  code_low below;  code_high above
        d value / d beta = 0  inside the range;  1 outside
        d value / d x    = 1  inside the range;  0 outside

    Differs from the source: there `value = code * s + beta` for any real `beta`. Here the offset is
    the nearest multiple of the step, `-z * s`, so that 0 (padding, the zeros of ReLU) stays exact
    and the offset is an integer on the chip; the gradients are those of the paper.

    It starts from the range of least squared error (`MSE()`); symmetric quantizers, for weights,
    have no offset and start from `mu +- 3 sigma`. Both gradients are multiplied by LSQ's factor.

    Attributes:
        offset: parameter, `beta`, the real value of code 0; None if symmetric.

    Source: Bhalgat et al. 2020, equations 2 to 7 and section 3.2, arXiv:2004.09576.
    """

    offset: nn.Parameter | None

    def __init__(self, bits: int = 8, **options: Any):
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = ThreeSigma() if self.symmetric else MSE()

    def register_scale(self) -> None:
        """Registers step and offset as parameters."""
        self.step = nn.Parameter(torch.ones(()))
        self.offset = None if self.symmetric else nn.Parameter(torch.zeros(()))
        self.register_buffer("smallest_step", torch.zeros(()))

    @property
    def zero_point(self) -> Tensor:
        """The code of 0, int64: `round(-offset / scale)` inside the codes."""
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

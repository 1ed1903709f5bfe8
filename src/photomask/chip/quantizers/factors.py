"""Quantizes activations with a power-of-two factor per channel, for the norms of transformers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.observers import Observer
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel
from photomask.errors import QuantizerError, RecipeError

WIDENED_BITS = 16
"""The width of the shifted codes that readers with a single scale get."""
_MOST = 14
"""The largest factor that is allowed. Norms shift by 15 at most.

Whether their squares fit the accumulator is checked where their integer operators are made.
"""


class PowerOfTwoFactors(Quantizer):
    """Quantizes with one scale per tensor and a power-of-two factor per channel of the last axis.

        scale[c] = layer scale * 2**factor[c],    0 <= factor[c] <= largest_factor

    Each factor is as small as the range of its channel allows. A norm reads such codes exactly, by
    shifting each code left by the factor of its channel. Other readers get the shifted codes, which
    have 16 bits. Codes are signed, and their zero point is 0.

    With a `largest_factor` above `16 - bits` the shifted codes would not fit 16 bits. All edges
    that additions connect then have the same factors, which `calibrate` decides from the ranges of
    all of them. Additions then add the codes unshifted, and only norms shift.

    Args:
        bits: 2 to 15, or 16 with a `largest_factor`.
        largest_factor: the largest exponent of a factor, at most 14; `16 - bits` if None.
        observer: how the range of each channel is chosen; `MinMax()` if None.

    Source: Lin et al. 2022 (FQ-ViT), section 3.2, arXiv:2111.13824. The paper fixes the largest
    factor at 3, chooses the factors by squared error, and gives the input of each norm its own.
    """

    def __init__(
        self, bits: int = 8, *, largest_factor: int | None = None, observer: Observer | None = None
    ):
        if bits == WIDENED_BITS and largest_factor is None:
            raise RecipeError(
                "codes of 16 bits leave no room for factors; use 15 bits or fewer, or set the "
                "largest factor, as in PowerOfTwoFactors(16, largest_factor=8)"
            )
        if largest_factor is not None and not 1 <= largest_factor <= _MOST:
            raise RecipeError(
                f"largest_factor must be an integer from 1 to {_MOST}, found {largest_factor}"
            )
        super().__init__(
            bits, symmetric=True, signed=True, granularity=PerChannel(-1), observer=observer
        )
        self.largest_factor = WIDENED_BITS - bits if largest_factor is None else largest_factor
        self.wanted = torch.ones(())

    @property
    def is_shared(self) -> bool:
        """True if all edges of a sum need the same factors, as shifted codes exceed 16 bits."""
        return self.bits + self.largest_factor > WIDENED_BITS

    def fit(self) -> None:
        """Decides the layer's scale and the factor of each channel from the observed values."""
        super().fit()
        low, high = self.observer.low, self.observer.high
        if low is None or high is None:
            raise QuantizerError(
                f"{type(self).__name__} has observed no values; call calibrate(prepared, data)"
            )
        wanted, occupied = self.scale.double(), ((low != 0) | (high != 0)).to(self.scale.device)
        self._set(torch.where(occupied, wanted, 0.0) if bool(occupied.any()) else wanted)

    def fit_shared(self, group: Sequence["PowerOfTwoFactors"]) -> None:
        """Decides the scales anew, with factors that follow from the ranges of a whole group.

        Args:
            group: the fitted quantizers of the group, including this one.
        """
        ranges = torch.stack([other.wanted for other in group])
        self._set(self.wanted, ranges.amax(dim=0))

    def extra_repr(self) -> str:
        """Returns the description of the quantizer for `print`."""
        return f"{super().extra_repr()}, factors up to 2**{self.largest_factor}"

    def _set(self, wanted: Tensor, together: Tensor | None = None) -> None:
        """Sets the smallest layer scale with which every channel covers its range.

        Args:
            wanted: the scale that the range of each channel needs, float64; 0 for a channel in
                which only 0 was observed.
            together: the scales that decide the factors; `wanted` if None.
        """
        self.wanted = wanted
        together = wanted if together is None else together
        used = together > 0
        largest, least = together[used].max(), together[used].min()
        reach = torch.log2(largest / least).ceil().clamp(0, self.largest_factor)
        lowest = largest / torch.exp2(reach)
        factor = torch.log2(together.clamp(max=largest) / lowest - 2.0**-40).ceil()
        factor = torch.nan_to_num(factor.clamp(0, self.largest_factor), nan=0.0)
        # The division is exact, because the divisor is a power of two.
        layer = (wanted / torch.exp2(factor))[used].max().float()
        scale = layer * torch.exp2(factor).float()
        self.set_parameters(self.format, scale, self.zero_point)

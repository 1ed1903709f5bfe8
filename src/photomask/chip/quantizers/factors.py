"""Activations whose channels differ by powers of two, as norms of transformers read them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from photomask.chip.observers import Observer
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel
from photomask.errors import QuantizerError, RecipeError

WIDENED_BITS = 16
"""What codes with factors are shifted into for readers that know one scale only."""
_MOST = 14
"""Norms shift by 15 at most; what their squares have room for is checked where they are made."""


class PowerOfTwoFactors(Quantizer):
    """Codes with one scale a tensor and a power of two a channel of the last axis.

        scale[c] = layer scale * 2**factor[c],    0 <= factor[c] <= largest_factor

    The factors are as small as each channel's range allows. A norm reads such codes exactly, its
    integers shifted left by the factor; other readers get them so shifted, in 16 bits. Codes are
    signed, and their zero point is 0.

    With a `largest_factor` beyond `16 - bits` no other reader could hold the shifted codes. Then
    all edges that sums join have the same factors, decided by `calibrate` from the ranges of all of
    them, and a sum adds codes as they are: only norms ever shift.

    Args:
        bits: 2 to 15, or 16 with a `largest_factor`.
        largest_factor: at most 14; `16 - bits` if None.
        observer: how the range of each channel is chosen; `MinMax()` if None.

    Source: Lin et al. 2022 (FQ-ViT), section 3.2, arXiv:2111.13824, which fixes the largest factor
    at 3, chooses them by squared error, and gives each norm's input its own.
    """

    def __init__(
        self, bits: int = 8, *, largest_factor: int | None = None, observer: Observer | None = None
    ):
        if bits == WIDENED_BITS and largest_factor is None:
            raise RecipeError(
                "codes of 16 bits leave no room for factors; use 15 bits or fewer, or say how "
                "large they may be: PowerOfTwoFactors(16, largest_factor=8)"
            )
        if largest_factor is not None and not 1 <= largest_factor <= _MOST:
            raise RecipeError(f"largest_factor must be 1 to {_MOST}, found {largest_factor}")
        super().__init__(
            bits, symmetric=True, signed=True, granularity=PerChannel(-1), observer=observer
        )
        self.largest_factor = WIDENED_BITS - bits if largest_factor is None else largest_factor
        self.wanted = torch.ones(())

    @property
    def is_shared(self) -> bool:
        """True if sums need the same factors on all their edges: none could hold shifted codes."""
        return self.bits + self.largest_factor > WIDENED_BITS

    def fit(self) -> None:
        """Decides the layer's scale and every channel's factor from what was observed."""
        super().fit()
        low, high = self.observer.low, self.observer.high
        if low is None or high is None:
            raise QuantizerError(f"{type(self).__name__} has observed no values; calibrate first")
        wanted, occupied = self.scale.double(), ((low != 0) | (high != 0)).to(self.scale.device)
        self._set(torch.where(occupied, wanted, 0.0) if bool(occupied.any()) else wanted)

    def fit_shared(self, group: Sequence["PowerOfTwoFactors"]) -> None:
        """Decides anew, with the factors that suit the ranges of a whole group.

        Args:
            group: fitted, itself among them.
        """
        ranges = torch.stack([other.wanted for other in group])
        self._set(self.wanted, ranges.amax(dim=0))

    def extra_repr(self) -> str:
        """Returns what `print` shows inside the brackets."""
        return f"{super().extra_repr()}, factors up to 2**{self.largest_factor}"

    def _set(self, wanted: Tensor, together: Tensor | None = None) -> None:
        """Takes the least layer scale whose channels cover what they want.

        Args:
            wanted: the scale that each channel's own range asks for, float64; 0 for a channel that
                is 0 throughout, which needs none of its own.
            together: what the factors are decided by; `wanted` if None.
        """
        self.wanted = wanted
        together = wanted if together is None else together
        used = together > 0
        largest, least = together[used].max(), together[used].min()
        reach = torch.log2(largest / least).ceil().clamp(0, self.largest_factor)
        lowest = largest / torch.exp2(reach)
        factor = torch.log2(together.clamp(max=largest) / lowest - 2.0**-40).ceil()
        factor = torch.nan_to_num(factor.clamp(0, self.largest_factor), nan=0.0)
        # Exact: dividing by a power of two rounds nothing.
        layer = (wanted / torch.exp2(factor))[used].max().float()
        scale = layer * torch.exp2(factor).float()
        self.set_parameters(self.format, scale, self.zero_point)

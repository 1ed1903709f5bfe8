"""Activations whose channels differ by powers of two, as norms of transformers read them."""

import torch

from photomask.chip.observers import Observer
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.granularity import PerChannel
from photomask.errors import RecipeError


class PowerOfTwoFactors(Quantizer):
    """Codes with one scale a tensor and a power of two a channel of the last axis.

        scale[c] = layer scale * 2**factor[c],    0 <= factor[c] <= 16 - bits

    The factors are as small as each channel's range allows. A norm reads such codes exactly, its
    integers shifted left by the factor; other readers get them so shifted, in 16 bits. Codes are
    signed, and their zero point is 0.

    Args:
        bits: 2 to 15.
        observer: how the range of each channel is chosen; `MinMax()` if None.

    Source: Lin et al. 2022 (FQ-ViT), section 3.2, arXiv:2111.13824, which fixes the largest factor
    at 3 and chooses them by squared error.
    """

    def __init__(self, bits: int = 8, *, observer: Observer | None = None):
        if bits == 16:
            raise RecipeError("codes of 16 bits leave no room for factors; use 15 bits or fewer")
        super().__init__(
            bits, symmetric=True, signed=True, granularity=PerChannel(-1), observer=observer
        )

    def fit(self) -> None:
        """Decides the layer's scale and every channel's factor from what was observed."""
        super().fit()
        wanted = self.scale.double()
        # A channel that is 0 throughout needs no scale of its own.
        used = wanted[wanted != 1.0] if bool((wanted != 1.0).any()) else wanted
        most = 16 - self.bits
        largest, least = used.max(), used.min()
        factors = torch.log2(largest / least).ceil().clamp(0, most)
        layer = (largest / torch.exp2(factors)).float().double()
        layer = torch.where(layer * torch.exp2(factors) < largest, layer * (1 + 2.0**-23), layer)
        factor = torch.log2(wanted.clamp(max=largest) / layer - 2.0**-40).ceil().clamp(0, most)
        factor = torch.nan_to_num(factor, nan=0.0)
        scale = layer.float() * torch.exp2(factor).float()
        self.set_parameters(self.format, scale, self.zero_point)

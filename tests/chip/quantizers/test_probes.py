"""Codes that rescaling would not compute are found, however many channels there are."""

import pytest
import torch
from torch import Tensor

from photomask.chip.quantizers import PowerOfTwoFactors
from photomask.chip.quantizers.levels import demand_nearest_codes
from photomask.errors import QuantizerError


class Without(PowerOfTwoFactors):
    """Never returns one of its codes."""

    def quantize(self, x: Tensor) -> Tensor:
        codes = super().quantize(x)
        return torch.where(codes == 77, codes + 1, codes)


@pytest.mark.parametrize("channels", [3, 576])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_missing_code_is_found_among_many_channels(bits: int, channels: int):
    x = torch.randn(10, channels, generator=torch.Generator().manual_seed(0))
    for kind in (PowerOfTwoFactors, Without):
        quantizer = kind(bits, largest_factor=8)
        quantizer.observe(x)
        quantizer.fit()
        if kind is PowerOfTwoFactors:
            demand_nearest_codes(quantizer, "here")
        else:
            with pytest.raises(QuantizerError, match="the code 78, but"):
                demand_nearest_codes(quantizer, "here")

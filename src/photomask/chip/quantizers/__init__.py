"""Quantizers: from real values to integer codes, and back."""

from photomask.chip.quantizers.adaround import AdaRound
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.contract import check_quantizer
from photomask.chip.quantizers.granularity import Granularity, PerChannel, PerGroup, PerTensor
from photomask.chip.quantizers.qdrop import QDrop
from photomask.chip.quantizers.straight_through import round_half_even

__all__ = [
    "AdaRound",
    "Granularity",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "QDrop",
    "Quantizer",
    "check_quantizer",
    "round_half_even",
]

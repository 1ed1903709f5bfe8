"""Quantizers: from real values to integer codes, and back."""

from photomask.chip.quantizers.adaround import AdaRound
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.contract import check_quantizer
from photomask.chip.quantizers.granularity import Granularity, PerChannel, PerGroup, PerTensor
from photomask.chip.quantizers.lsq import LSQ
from photomask.chip.quantizers.lsq_plus import LSQPlus
from photomask.chip.quantizers.pact import PACT
from photomask.chip.quantizers.qdrop import QDrop
from photomask.chip.quantizers.sawb import SAWB
from photomask.chip.quantizers.straight_through import round_half_even

__all__ = [
    "LSQ",
    "PACT",
    "SAWB",
    "AdaRound",
    "Granularity",
    "LSQPlus",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "QDrop",
    "Quantizer",
    "check_quantizer",
    "round_half_even",
]

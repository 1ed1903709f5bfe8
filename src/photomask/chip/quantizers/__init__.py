"""Quantizers map real values to integer codes and back."""

from photomask.chip.quantizers.a2q import A2Q
from photomask.chip.quantizers.a2q_plus import A2QPlus
from photomask.chip.quantizers.adaround import AdaRound
from photomask.chip.quantizers.apot import APoT
from photomask.chip.quantizers.base import Quantizer
from photomask.chip.quantizers.binary import Binary
from photomask.chip.quantizers.contract import check_quantizer
from photomask.chip.quantizers.dorefa import DoReFa, DoReFaActivation
from photomask.chip.quantizers.factors import PowerOfTwoFactors
from photomask.chip.quantizers.granularity import Granularity, PerChannel, PerGroup, PerTensor
from photomask.chip.quantizers.levels import used_codes
from photomask.chip.quantizers.lsq import LSQ
from photomask.chip.quantizers.lsq_plus import LSQPlus
from photomask.chip.quantizers.microscaling import Microscaling
from photomask.chip.quantizers.pact import PACT
from photomask.chip.quantizers.qdrop import QDrop
from photomask.chip.quantizers.rcf import RCF
from photomask.chip.quantizers.sawb import SAWB
from photomask.chip.quantizers.straight_through import round_half_even
from photomask.chip.quantizers.ternary import Ternary
from photomask.chip.quantizers.tqt import TQT

__all__ = [
    "A2Q",
    "LSQ",
    "PACT",
    "RCF",
    "SAWB",
    "TQT",
    "A2QPlus",
    "APoT",
    "AdaRound",
    "Binary",
    "DoReFa",
    "DoReFaActivation",
    "Granularity",
    "LSQPlus",
    "Microscaling",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "PowerOfTwoFactors",
    "QDrop",
    "Quantizer",
    "Ternary",
    "check_quantizer",
    "round_half_even",
    "used_codes",
]

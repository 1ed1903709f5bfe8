"""Improves the rounding of weights by statistics of the layers' inputs: GPTQ and AWQ.

scale_salient_channels(prepared, images)    before calibrate: AWQ
calibrate(prepared, images)
compensate_rounding(prepared, images)       after calibrate: GPTQ
"""

from photomask.chip.weight_rounding.awq import SalientReport, scale_salient_channels
from photomask.chip.weight_rounding.gptq import RoundingReport, compensate_rounding

__all__ = ["RoundingReport", "SalientReport", "compensate_rounding", "scale_salient_channels"]

"""Is an integer program a faithful copy of its float model, and what does each choice cost?"""

from photomask.chip.verification.comparison import compare_reports
from photomask.chip.verification.documents import Thresholds
from photomask.chip.verification.html import write_html
from photomask.chip.verification.layer_sensitivity import (
    LayerSensitivities,
    measure_layer_sensitivity,
)
from photomask.chip.verification.prepared import PreparedReport, compare_with_prepared
from photomask.chip.verification.report import Report
from photomask.chip.verification.rescaling import with_multiplier_bits
from photomask.chip.verification.verification import verify

__all__ = [
    "LayerSensitivities",
    "PreparedReport",
    "Report",
    "Thresholds",
    "compare_reports",
    "compare_with_prepared",
    "measure_layer_sensitivity",
    "verify",
    "with_multiplier_bits",
    "write_html",
]

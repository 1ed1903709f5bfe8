"""The reference design: a program as its descriptors and images, and its simulation."""

from photomask.chip.forms.rtl import convolution as convolution
from photomask.chip.forms.rtl import elementwise as elementwise
from photomask.chip.forms.rtl import moving as moving
from photomask.chip.forms.rtl import pooling as pooling
from photomask.chip.forms.rtl import products as products
from photomask.chip.forms.rtl import requantize as requantize
from photomask.chip.forms.rtl import transformers as transformers
from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.export import RtlForm
from photomask.chip.forms.rtl.lowering import SupportReport, support_report
from photomask.chip.forms.rtl.simulation import simulate
from photomask.chip.forms.rtl.simulation_report import SimulationReport
from photomask.chip.forms.rtl.synthesis import (
    LintReport,
    SynthesisReport,
    lint,
    rtl_sources,
    synthesize,
)

__all__ = [
    "LintReport",
    "RtlDesign",
    "RtlForm",
    "SimulationReport",
    "SupportReport",
    "SynthesisReport",
    "lint",
    "model_cycles",
    "rtl_sources",
    "simulate",
    "support_report",
    "synthesize",
]

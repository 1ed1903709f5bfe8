"""The reference design: a program as its descriptors and images, and its simulation."""

from photomask.chip.forms.rtl.cycles import model_cycles
from photomask.chip.forms.rtl.design import RtlDesign
from photomask.chip.forms.rtl.export import export_rtl
from photomask.chip.forms.rtl.lowering import SupportReport, support_report
from photomask.chip.forms.rtl.simulation import simulate
from photomask.chip.forms.rtl.simulation_report import SimulationReport

__all__ = [
    "RtlDesign",
    "SimulationReport",
    "SupportReport",
    "export_rtl",
    "model_cycles",
    "simulate",
    "support_report",
]

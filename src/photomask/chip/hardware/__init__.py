"""The hand-over to hardware: machines, what a program costs on them, and RTL that computes it."""

from photomask.chip.hardware.accelerator import Accelerator, load_accelerator
from photomask.chip.hardware.cycles import model_cycles
from photomask.chip.hardware.estimates import HardwareReport, estimate
from photomask.chip.hardware.lowering import SupportReport, support_report
from photomask.chip.hardware.rtl_design import RtlDesign
from photomask.chip.hardware.rtl_export import export_rtl
from photomask.chip.hardware.simulation import simulate
from photomask.chip.hardware.simulation_report import SimulationReport

__all__ = [
    "Accelerator",
    "HardwareReport",
    "RtlDesign",
    "SimulationReport",
    "SupportReport",
    "estimate",
    "export_rtl",
    "load_accelerator",
    "model_cycles",
    "simulate",
    "support_report",
]

"""What a program costs on an accelerator: tiles, cycles, traffic, energy."""

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.cost.estimates import HardwareReport, estimate

__all__ = ["Accelerator", "HardwareReport", "estimate", "load_accelerator"]

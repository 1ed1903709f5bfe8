"""The cost model: what a program costs on an accelerator in tiles, cycles, traffic and energy."""

from photomask.chip.cost.accelerator import Accelerator, load_accelerator
from photomask.chip.cost.estimates import HardwareReport, estimate
from photomask.chip.cost.tiling import Tiling, tile

__all__ = ["Accelerator", "HardwareReport", "Tiling", "estimate", "load_accelerator", "tile"]

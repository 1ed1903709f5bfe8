"""From calibrated quantizers to the integer program.

Each float node becomes one to three integer steps: the exact integer computation into an
accumulator, and a requantization to the format of its output.
"""

from photomask.chip.conversion.alignment import align_to_target
from photomask.chip.conversion.freezing import convert

__all__ = ["align_to_target", "convert"]

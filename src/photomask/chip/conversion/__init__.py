"""Converts a calibrated model to an integer program.

Most float nodes become two integer steps: the exact integer computation of an accumulator, and its
requantization to the format of the output. Where inputs have another scale than the step needs,
requantizations of the inputs come before.
"""

from photomask.chip.conversion.alignment import align_to_target
from photomask.chip.conversion.freezing import convert

__all__ = ["align_to_target", "convert"]

"""Learns how weights are rounded after calibration, block by block.

report = reconstruct(prepared, images)
program = convert(prepared, load_target("asic"))
"""

from photomask.chip.reconstruction.blocks import Block, find_blocks
from photomask.chip.reconstruction.documents import (
    BlockReport,
    ReconstructionReport,
    ReconstructionSettings,
)
from photomask.chip.reconstruction.reconstructing import reconstruct

__all__ = [
    "Block",
    "BlockReport",
    "ReconstructionReport",
    "ReconstructionSettings",
    "find_blocks",
    "reconstruct",
]

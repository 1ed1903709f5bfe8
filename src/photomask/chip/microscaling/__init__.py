"""Provides OCP microscaling (MX) formats: bit patterns, fake quantization, integer dot products.

blocks = encode(x, MXFP4)          # uint8 codes, and an E8M0 scale for each 32 of them
value = dot(encode(w, MXFP4), encode(x, MXFP8_E4M3))
value.fractions()                  # the exact dot products of the encoded values

Source: OCP Microscaling Formats (MX) Specification, version 1.0, 2023.
"""

from photomask.chip.microscaling.blocks import Blocks, decode, encode
from photomask.chip.microscaling.dot_product import DotProduct, DotProductWidths, dot
from photomask.chip.microscaling.elements import (
    MX_FORMATS,
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    ElementFormat,
)
from photomask.chip.microscaling.rounding import round_to_blocks

__all__ = [
    "MXFP4",
    "MXFP6_E2M3",
    "MXFP6_E3M2",
    "MXFP8_E4M3",
    "MXFP8_E5M2",
    "MXINT8",
    "MX_FORMATS",
    "Blocks",
    "DotProduct",
    "DotProductWidths",
    "ElementFormat",
    "decode",
    "dot",
    "encode",
    "round_to_blocks",
]

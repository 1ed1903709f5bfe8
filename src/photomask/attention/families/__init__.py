"""Which models are supported, and how their images stand among the tokens of a prompt."""

from photomask.attention.families.segmentation import (
    TokenCode,
    has_image_tokens,
    layout_of,
    layout_of_codes,
    token_codes,
)
from photomask.attention.families.table import FAMILIES, Delimiters, Family, family_of

__all__ = [
    "FAMILIES",
    "Delimiters",
    "Family",
    "TokenCode",
    "family_of",
    "has_image_tokens",
    "layout_of",
    "layout_of_codes",
    "token_codes",
]

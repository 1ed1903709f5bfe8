"""The supported model families, and how each places images among the tokens of a prompt."""

from photomask.attention.families.segmentation import (
    TokenCode,
    codes_of_layout,
    codes_of_single_tokens,
    has_image_codes,
    has_image_tokens,
    image_tokens,
    layout_of,
    layout_of_codes,
    settled,
    token_codes,
)
from photomask.attention.families.table import FAMILIES, Delimiters, Family, family_of

__all__ = [
    "FAMILIES",
    "Delimiters",
    "Family",
    "TokenCode",
    "codes_of_layout",
    "codes_of_single_tokens",
    "family_of",
    "has_image_codes",
    "has_image_tokens",
    "image_tokens",
    "layout_of",
    "layout_of_codes",
    "settled",
    "token_codes",
]

"""Rewrites of a prepared model's weights that change no float result but suit integers better.

`smooth`, `smooth_products` and `equalize` move scale between what makes a channel and what reads
it; `correct_biases` takes back what rounding the weights shifts on average. All are done before
`calibrate`, which then measures the model that is left.
"""

from photomask.chip.equalization.channels import (
    Channel,
    correct_biases,
    equalize,
    rescalable,
    rescale,
    smooth,
)
from photomask.chip.equalization.products import smooth_products

__all__ = [
    "Channel",
    "correct_biases",
    "equalize",
    "rescalable",
    "rescale",
    "smooth",
    "smooth_products",
]

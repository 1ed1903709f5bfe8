"""Changes weights of a prepared model before quantization, so that quantization loses less.

`smooth`, `smooth_products` and `equalize` move scale from the outputs of a layer or norm into the
weights of its readers, or back; the float results stay the same. `correct_biases` compensates the
mean error of rounded weights. Call them before `calibrate`, which measures the changed model;
`correct_biases` may also come after it.
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

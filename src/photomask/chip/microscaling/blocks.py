"""Converts real numbers to MX bit patterns and back."""

from dataclasses import dataclass

import numpy as np

from photomask.chip.microscaling.elements import BLOCK, NAN_SCALE, SCALE_BIAS, ElementFormat
from photomask.errors import DataError


@dataclass(frozen=True)
class Blocks:
    """A tensor in an MX format, with blocks along the last axis.

    Attributes:
        format: the format of the elements.
        scales: the E8M0 codes of the scales, uint8 `[..., blocks]`.
        codes: the codes of the elements, uint8 `[..., blocks, 32]`, right-aligned; the padding of
            the last block is 0.
        length: the number of elements along the last axis without the padding.
    """

    format: ElementFormat
    scales: np.ndarray
    codes: np.ndarray
    length: int


def encode(x: np.ndarray, format: ElementFormat) -> Blocks:
    """Returns an array quantized in blocks along the last axis.

        scale   = 2**(floor(log2(max |x|)) - largest exponent of the format), of each block
        element = x / scale, rounded half to even, saturated to the largest finite magnitude

    Scales are clamped to `2**-127 … 2**127`. A block of zeros has the smallest scale. A block that
    holds NaN or infinity has the NaN scale.

    Args:
        x: float32 or float64 values with at least one axis.
        format: the format of the elements.

    Raises:
        DataError: the values are not float32 or float64, or there are none.

    Source: OCP MX specification 1.0, section 6.3.
    """
    x = np.asarray(x)
    if x.dtype not in (np.float32, np.float64) or x.ndim < 1 or x.size == 0:
        raise DataError(
            "MX blocks need at least one float32 or float64 value along an axis, found "
            f"{x.dtype} of shape {list(x.shape)}"
        )
    length = x.shape[-1]
    count = -(-length // BLOCK)
    padded = np.zeros((*x.shape[:-1], count * BLOCK))
    padded[..., :length] = x
    blocks = padded.reshape(*x.shape[:-1], count, BLOCK)
    finite = np.asarray(np.isfinite(blocks).all(axis=-1))
    blocks = np.where(finite[..., None], blocks, 0.0)
    largest = np.abs(blocks).max(axis=-1)
    # The mantissa of frexp lies in [1/2, 1), so its exponent is floor(log2) + 1.
    exponent = np.frexp(largest)[1] - 1 - format.largest_exponent
    exponent = np.where(largest > 0, exponent, -SCALE_BIAS).clip(-SCALE_BIAS, SCALE_BIAS)
    codes = _codes(blocks, exponent[..., None], format)
    scales = np.where(finite, exponent + SCALE_BIAS, NAN_SCALE).astype(np.uint8)
    return Blocks(format, scales, codes.astype(np.uint8), length)


def decode(blocks: Blocks) -> np.ndarray:
    """Returns the exact values that the codes represent, float64 `[..., length]`."""
    exponent = blocks.scales.astype(np.int64)[..., None] - SCALE_BIAS
    values = np.ldexp(blocks.format.values[blocks.codes], exponent)
    values = np.where(blocks.scales[..., None] == NAN_SCALE, np.nan, values)
    shape = (*blocks.scales.shape[:-1], -1)
    return values.reshape(shape)[..., : blocks.length]


def _codes(x: np.ndarray, exponent: np.ndarray, format: ElementFormat) -> np.ndarray:
    """Returns the codes of `x / 2**exponent`.

    The code of a magnitude is `(field - 1) * 2**mantissa_bits + significand`, in which the unit of
    the significand doubles with each exponent field. A significand that rounds up to the next power
    of two therefore carries into the exponent field.
    """
    if format.is_integer:
        integers = np.rint(np.ldexp(x, format.mantissa_bits - exponent))
        return integers.clip(-127, 127).astype(np.int64) & 0xFF
    magnitude = np.abs(x)
    at = np.maximum(np.frexp(magnitude)[1] - 1 - exponent, 1 - format.bias)
    at = np.where(magnitude > 0, at, 1 - format.bias)  # the exponent field of 0 is 0
    significand = np.rint(np.ldexp(magnitude, format.mantissa_bits - at - exponent))
    code = ((at + format.bias - 1) << format.mantissa_bits) + significand.astype(np.int64)
    code = np.minimum(code, format.largest_code)
    return code | (np.signbit(x).astype(np.int64) << (format.bits - 1))

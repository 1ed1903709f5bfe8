"""Computes QuantizeLinear and DequantizeLinear as ONNX does, in float32 with halves to even."""

import numpy as np
import torch
from torch import Tensor

from photomask.chip.conversion.builder import Scale
from photomask.chip.formats import IntFormat
from photomask.chip.quantizers import Quantizer


def quantize_linear(
    values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, format: IntFormat
) -> np.ndarray:
    """Returns `saturate(round_half_even(values / scale) + zero_point)` as int64.

    The quotient is computed in float32. Infinities saturate. NaN becomes the lowest code, as in
    ONNX Runtime on x86 processors; ONNX does not define it.

    Args:
        values: the numbers to quantize.
        scale: positive float32 that broadcasts against `values`.
        zero_point: int64, in the shape of `scale`.
        format: the format of the codes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.asarray(values).astype(np.float32) / scale.astype(np.float32)
    rounded = np.nan_to_num(np.rint(ratio).astype(np.float64), nan=-np.inf)
    return np.clip(rounded + zero_point, format.low, format.high).astype(np.int64)


def code_of(value: float, scale: Scale) -> int:
    """Returns the code that QuantizeLinear computes for a number."""
    one = np.array(scale.scale), np.array(scale.zero_point)
    return int(quantize_linear(np.array(value), *one, scale.format))


def real_of(code: int, scale: Scale) -> float:
    """Returns the float32 number that DequantizeLinear computes for a code."""
    return float(np.float32(code - scale.zero_point) * np.float32(scale.scale))


def is_code(value: float, scale: Scale) -> bool:
    """Tells whether a code represents a number exactly."""
    return real_of(code_of(value, scale), scale) == float(np.float32(value))


class FileQuantizer(Quantizer):
    """Quantizes as the QuantizeLinear and DequantizeLinear nodes of a file do.

        quantize(x) = clamp(round_half_even(float32(x) / float32(scale)) + zero_point, low, high)

    Unlike its base class, it divides in float32 also for float64 values.
    """

    def quantize(self, x: Tensor) -> Tensor:
        """Returns codes in the dtype of `x`."""
        ratio = (x.float() / self.scale_for(x).float()).round()
        zero_point, codes = self.zero_point_for(x), self.codes
        rounded = torch.nan_to_num(ratio.to(x.dtype), nan=-torch.inf)
        return (rounded + zero_point).clamp(codes.low, codes.high)

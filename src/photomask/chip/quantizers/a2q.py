"""A2Q limits the l1 norm of integer weights, so that no input can overflow the accumulator."""

from typing import Any

import torch
from torch import Tensor, nn

from photomask.chip.observers.moments import MeanMagnitude
from photomask.chip.quantizers.base import Quantizer, at_least_float32
from photomask.chip.quantizers.granularity import PerChannel
from photomask.chip.quantizers.lsq import refuse_unlearnable
from photomask.chip.quantizers.refitting import narrow_options
from photomask.chip.quantizers.straight_through import at_least, at_most, learn_step
from photomask.errors import RecipeError

UNLIMITED = 2.0**60
"""The limit of a channel whose accumulator is not known."""
PENALTY = 1e-3
"""The factor of the penalty on norms above their limit, lambda in the paper."""


class A2Q(Quantizer):
    """Quantizes a weight so that the l1 norm of each output channel's codes stays below a limit.

        w     = g * v / ||v||_1,   s = s0 * 2**d,   g = min(n0 * 2**t, limit * s)
        code  = clamp(toward_zero(w / s)),   value = code * s
        ||code||_1 <= g / s <= limit = floor((2**(P-1) - 1 - |b|) / m)

    for each output channel, where `v` is the weight that training moves, `P` is the width of the
    accumulator, `b` is the integer bias, and `m` is the largest magnitude of an input code. No
    partial sum then exceeds the accumulator, in any order and for any input. `s0` and `n0` are the
    fitted scale and norm. The gradient passes straight through the rounding, and through `min` to
    the smaller argument. Where the norm is above its limit, `t` gets the gradient `PENALTY`, that
    of the penalty `PENALTY * max(0, log2(n / (limit * s)))`; reported losses do not contain it.

    The limit follows the accumulators of the target that `prepare` gets, the input's codes and the
    bias (`photomask.chip.sum_limits`). Before that, there is no limit.

    It differs from the source in three ways. The limit counts the bias and an input's zero point,
    which the source leaves out. `m` is the largest code, where the source has `2**N`, which is one
    more for unsigned inputs. The penalty works in the gradient, so that any training loop has it.
    `photomask.chip.training.train` starts from the projection that `A2QPlus` describes.

    The codes of a channel depend on its norm, so the laws of the fixed point and of independence
    are waived. A weight that is 0 has code 0.

    Args:
        bits: the width of the codes, 2 to 16.
        options: the options of `Quantizer`. Codes are narrow, and scales per output channel.

    Attributes:
        scale_exponent: the parameter for `d`, in the shape of `scale`.
        norm_exponent: the parameter for `t`, in the shape of `scale`.
        limit: the largest l1 norm of a channel's codes, in the shape of `scale`.
        least_scale: the scale never falls below it, so that the bias leaves room for products.
        accumulator_bits: the width of the accumulators of the target, or None.
        operand_bits: the bits of a weight and an input together for which `accumulator_bits` holds.
            Where training begins with wider operands, the accumulator counts as wider by as much.

    Raises:
        RecipeError: affine, unsigned or power-of-two codes, or another granularity were asked for.

    Source: Colbert, Pappalardo and Petri-Koenig 2023, equations 12 to 23, arXiv:2308.13504.
    """

    weights_only = True
    waived_laws = frozenset({"fixed point", "independence"})
    scale_exponent: nn.Parameter
    norm_exponent: nn.Parameter
    reference_scale: Tensor
    reference_norm: Tensor
    limit: Tensor
    least_scale: Tensor

    def __init__(self, bits: int = 8, **options: Any):
        name = type(self).__name__
        granularity = options.get("granularity", PerChannel())
        refuse_unlearnable(name, granularity, options.get("power_of_two", False))
        if granularity != PerChannel():
            raise RecipeError(
                f"{name} limits the norm of each output channel, found granularity "
                f"{granularity}; use PerChannel()"
            )
        options = {**narrow_options(name, options), "granularity": granularity}
        super().__init__(bits, **options)
        if options.get("observer") is None:
            self.observer = MeanMagnitude()
        self.accumulator_bits: int | None = None
        self.operand_bits = 0
        self._norm: Tensor | None = None

    def register_scale(self) -> None:
        """Registers the exponents as parameters, and what they are relative to."""
        self.scale_exponent = nn.Parameter(torch.zeros(()))
        self.norm_exponent = nn.Parameter(torch.zeros(()))
        self.register_buffer("reference_scale", torch.ones(()))
        self.register_buffer("reference_norm", torch.ones(()))
        self.register_buffer("limit", torch.full((), UNLIMITED))
        self.register_buffer("least_scale", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int64))

    def limit_sums(self, accumulator_bits: int, operand_bits: int) -> None:
        """Sets the width of the accumulators, and the bits of the operands that it is for."""
        self.accumulator_bits = accumulator_bits
        self.operand_bits = operand_bits

    def observe(self, x: Tensor) -> None:
        """Shows a weight to the observer, and remembers its norms.

        Raises:
            DataError: as for `Quantizer`.
        """
        super().observe(x)
        self._norm = self.norm_of(self.centred(at_least_float32(x.detach()))).flatten()

    def fit(self) -> None:
        """Decides the scale from the observed weight and the norm from the last one; no limit.

        Raises:
            QuantizerError: nothing was observed.
        """
        super().fit()
        scale = self.scale.detach()
        self.limit = torch.full_like(scale, UNLIMITED)
        if self._norm is not None:
            self.set_norm(self._norm)

    def set_norm(self, norm: Tensor) -> None:
        """Sets the norm `n` of each channel, in the shape of `scale`; 0 counts as one step."""
        norm = norm.detach().to(self.reference_scale)
        self.reference_norm = torch.where(norm > 0, norm, self.scale.detach())
        self.norm_exponent.data = torch.zeros_like(norm)

    @property
    def scale(self) -> Tensor:
        """The scale `s0 * 2**d`, but at least `least_scale`."""
        return at_least(self.reference_scale * self.scale_exponent.exp2(), self.least_scale.clone())

    @scale.setter
    def scale(self, value: Tensor) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        value = value.detach().clone()
        self.reference_scale = value
        self.scale_exponent.data = torch.zeros_like(value)
        # What the bias needs is decided anew for new scales; see `photomask.chip.sum_limits`.
        self.least_scale = torch.zeros_like(value)

    def rescale(self, factor: Tensor) -> None:
        """Multiplies scale and norm, so that values times a factor get the codes that they had."""
        norm = self.reference_norm * self.norm_exponent.detach().exp2() * factor
        least = self.least_scale * factor
        super().rescale(factor)
        self.set_norm(norm)
        self.least_scale = least

    def centred(self, x: Tensor) -> Tensor:
        """Returns `v`, which is the weight itself; a subclass may subtract from it."""
        return x

    def norm_of(self, v: Tensor) -> Tensor:
        """Returns the l1 norm of each output channel in a shape that broadcasts; 1 instead of 0."""
        norm = v.abs().flatten(1).sum(dim=1).reshape(-1, *(1,) * (v.ndim - 1))
        return torch.where(norm > 0, norm, 1.0)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns `toward_zero(min(n / s, limit) * v / ||v||_1)`, clamped to the codes."""
        codes = self.codes
        v = self.centred(at_least_float32(x))
        norm = self.reference_norm * self.norm_exponent.exp2()
        size = torch.minimum(norm / self.scale, self.limit.clone())
        ratio = v * (self.granularity.align(size, v) / self.norm_of(v))
        return ratio.trunc().clamp(codes.low, codes.high)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `dequantize(quantize(x))` with the gradients of the class's equations."""
        with torch.no_grad():
            value = self.dequantize(self.quantize(x))
        if not torch.is_grad_enabled():
            return value
        scale = self.scale
        bound = (self.limit.clone() * scale / self.reference_norm).log2()
        norm = self.reference_norm * at_most(self.norm_exponent, bound, PENALTY).exp2()
        v = self.centred(at_least_float32(x))
        weight = v * (self.granularity.align(norm, v) / self.norm_of(v))
        return learn_step(
            weight,
            value,
            self.granularity.align(scale, x),
            None,
            low=self.codes.low,
            high=self.codes.high,
            factor=1.0,
        ).to(value.dtype)

"""APoT quantizes to sums of powers of two, so that a product needs only a few shifts."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from photomask.chip.formats import IntFormat
from photomask.chip.observers.moments import ThreeSigma
from photomask.chip.quantizers.base import at_least_float32
from photomask.chip.quantizers.rcf import RCF
from photomask.chip.quantizers.refitting import narrow_options
from photomask.chip.quantizers.straight_through import pass_gradient_inside
from photomask.errors import RecipeError


@cache
def additive_powers_of_two(bits: int) -> tuple[int, ...]:
    """Returns the non-negative levels as integers in ascending order from 0.

    `bits` is split into terms of two bits each, and a term of one bit where it is odd. A term of
    `k` bits is 0 or one of `2**k - 1` powers of two. The powers are assigned to the terms in turn,
    starting with the largest power. The term of one bit takes part only in the last round, where it
    comes first. A level is the sum of one choice from each term.

    Args:
        bits: the bits of the index of a level, without the sign.

    Source: Li et al. 2020, equation 5, arXiv:1909.13144.
    """
    pairs, odd = divmod(bits, 2)
    terms: list[list[int]] = [[] for _ in range(pairs + odd)]
    exponent = 3 * pairs + odd
    for turn in range(3 if pairs else 1):
        last = turn == 2 or not pairs
        for term in ([pairs] if odd and last else []) + list(range(pairs)):
            exponent -= 1
            terms[term].append(2**exponent)
    levels = {0}
    for term in terms:
        levels = {level + power for level in levels for power in (0, *term)}
    return tuple(sorted(levels))


class APoT(RCF):
    """Quantizes weights to additive powers of two, clipped by a learned value (RCF).

        levels = +-sums of one choice of each term, e.g. for 4 bits 0 1 2 3 4 6 8 10
        code   = the level nearest to x / scale,   scale = alpha / largest level

    The levels are dense around 0, where most weights are. A code is the integer value of a level.
    There are `2**bits - 1` levels, and `format` is wide enough for the largest of them, so it has
    more bits than `bits` where the levels are not consecutive. `used_codes` lists the levels.

    The clip starts from `mu +- 3 sigma`, as in the paper (3 for its normalized weights). The
    gradients are those of `RCF`.

    Args:
        bits: the bits of the index of a level, 2 to 8.
        options: the options of `Quantizer`; codes are signed and narrow.

    Raises:
        RecipeError: more than 8 bits, affine or unsigned codes, scales per group or power-of-two
            scales were asked for.

    Source: Li et al. 2020, sections 2.2 and 2.3, arXiv:1909.13144.
    """

    weights_only = True

    def __init__(self, bits: int = 4, **options: Any):
        super().__init__(bits, **narrow_options("APoT", options))
        if bits > 8:
            raise RecipeError(f"APoT needs 2 to 8 bits, found {bits}")
        if options.get("observer") is None:
            self.observer = ThreeSigma()

    @property
    def largest_code(self) -> int:
        """The largest level, which is the code of the clip."""
        return additive_powers_of_two(self.bits - 1)[-1]

    def fit(self) -> None:
        """Fits the scale so that the largest level represents the end of the observed range."""
        super().fit()
        scale = self.scale.detach() * (self.codes.high / self.largest_code)
        self.set_parameters(self.format, scale, self.zero_point)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the nearest levels; of two equally near ones, the one nearer to 0."""
        ratio = at_least_float32(x) / self.scale_for(x)
        levels = torch.tensor(additive_powers_of_two(self.bits - 1)).to(ratio)
        nearest = torch.bucketize(ratio.detach().abs().contiguous(), (levels[1:] + levels[:-1]) / 2)
        code = levels[nearest] * ratio.detach().sign()
        return pass_gradient_inside(ratio, code, -self.largest_code, self.largest_code)

    def extra_repr(self) -> str:
        """Returns the description for `print`, with the number of levels."""
        return f"{2**self.bits - 1} levels of {super().extra_repr()}"

    def _decide_format(self) -> IntFormat:
        return IntFormat(bits=self.largest_code.bit_length() + 1, signed=True)

"""APoT: levels that are sums of powers of two, so that a product is a few shifts."""

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
    """Returns the levels that are not negative, as integers, ascending from 0.

    `bits` are dealt to terms of two bits, and one of a single bit if they are odd. A term of `k`
    bits is 0 or one of `2**k - 1` powers of two; the powers are dealt to the terms in turn, from
    the largest down; the single-bit term is first in the last turn, its only one. A level is the
    sum of one choice from each term.

    Args:
        bits: of the index of a level, without its sign.

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
    """Additive powers of two for weights, clipped by a learned value (RCF).

        levels = +-sums of one choice of each term, e.g. for 4 bits 0 1 2 3 4 6 8 10
        code   = the level nearest to x / scale,   scale = alpha / largest level

    Levels are dense around 0, where weights are. Codes are integers on a linear grid that names the
    levels and no others: `bits` count the levels, `2**bits - 1` of them, and `format` has the width
    of the integers, one or more bits wider. `used_codes` lists them.

    Starts from `mu +- 3 sigma`, as the paper does (3 for its normalized weights). The gradients are
    those of `RCF`.

    Args:
        bits: 2 to 8: so many bits tell the levels apart.
        options: as for `Quantizer`; codes are signed and narrow.

    Raises:
        RecipeError: more than 8 bits, affine or unsigned codes, per group, power-of-two scales.

    Source: Li et al. 2020, sections 2.2 and 2.3, arXiv:1909.13144.
    """

    weights_only = True

    def __init__(self, bits: int = 4, **options: Any):
        super().__init__(bits, **narrow_options("APoT", options))
        if bits > 8:
            raise RecipeError(f"APoT has levels of 2 to 8 bits, found {bits}")
        if options.get("observer") is None:
            self.observer = ThreeSigma()

    @property
    def largest_code(self) -> int:
        """The code of the clip: the largest level."""
        return additive_powers_of_two(self.bits - 1)[-1]

    def fit(self) -> None:
        """Lets the largest level, not the largest integer, stand for the end of the range."""
        super().fit()
        scale = self.scale.detach() * (self.codes.high / self.largest_code)
        self.set_parameters(self.format, scale, self.zero_point)

    def quantize(self, x: Tensor) -> Tensor:
        """Returns the nearest levels; of two equally near ones the smaller."""
        ratio = at_least_float32(x) / self.scale_for(x)
        levels = torch.tensor(additive_powers_of_two(self.bits - 1)).to(ratio)
        nearest = torch.bucketize(ratio.detach().abs().contiguous(), (levels[1:] + levels[:-1]) / 2)
        code = levels[nearest] * ratio.detach().sign()
        return pass_gradient_inside(ratio, code, -self.largest_code, self.largest_code)

    def extra_repr(self) -> str:
        """Returns what `print` shows inside the brackets: the number of levels too."""
        return f"{2**self.bits - 1} levels of {super().extra_repr()}"

    def _decide_format(self) -> IntFormat:
        return IntFormat(bits=self.largest_code.bit_length() + 1, signed=True)

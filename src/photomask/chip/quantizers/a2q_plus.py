"""A2Q+ centres the weights of a channel around 0, which doubles the norm that fits."""

from torch import Tensor

from photomask.chip.quantizers.a2q import A2Q


class A2QPlus(A2Q):
    """Quantizes as `A2Q` does, with weights of mean 0 and a limit that is about twice as large.

        v     = w - mean(w),   where w != 0;   0 elsewhere
        code  = clamp(toward_zero(g / s * v / ||v||_1))
        limit = 2 * floor((2**(P-1) - 1 - |b|) / (2**N - 1))

    for each output channel, with inputs of `N` bits. The positive and the negative elements of `v`
    have the same sum, and rounding toward zero makes neither larger. Each of the two sums of codes
    is therefore at most `limit / 2`. The largest sum of products is the sum of the positive codes
    times the largest input code, plus that of the negative codes times the smallest one, and for
    `N` bits the two codes are `2**N - 1` apart. Without a bias, the limit is that of the source,
    `(2**P - 2) / (2**N - 1)`.

    `photomask.chip.training.train` starts from the Euclidean projection of `v` onto the l1 ball of
    the limit, as the source does.

    It differs from the source as `A2Q` does. Also, a weight that is exactly 0, as a pruned one is,
    stays 0 and does not count for the mean. Next to 0 the codes are therefore not monotonic, and
    that law is waived too.

    Args:
        bits: the width of the codes, 2 to 16.
        options: as for `A2Q`.

    Raises:
        RecipeError: as for `A2Q`.

    Source: Colbert et al. 2024, equations 14 to 19, arXiv:2401.10432.
    """

    waived_laws = A2Q.waived_laws | {"monotony"}

    def centred(self, x: Tensor) -> Tensor:
        """Returns the weight minus the mean of its elements that are not 0; the others stay 0.

        The others get a gradient as well, because 0 may also be the result of a projection.
        """
        kept = x != 0
        count = kept.flatten(1).sum(dim=1).clamp(min=1)
        mean = x.flatten(1).sum(dim=1) / count
        return x - mean.reshape(-1, *(1,) * (x.ndim - 1)) * kept

"""Prunes the smallest weights."""

from photomask.chip.pruning.base import Pruner


class Magnitude(Pruner):
    """Keeps the weights with the largest magnitude.

        score = |w|

    Within a training the sparsity grows along the schedule (`PruningSchedule`), and pruned weights
    stay pruned, because they are 0 and do not learn.

    Source: Han et al. 2015, arXiv:1506.02626; gradual pruning: Zhu and Gupta 2017,
    arXiv:1710.01878. For blocks, the score is the mean magnitude of a block.
    """

"""Prunes weights: which of them are worth keeping, in which pattern, at once or while training.

A pruner is an object, as a quantizer is. `prune` prunes a prepared model at once, and
`train(..., pruner=...)` prunes it while it learns. Pruned weights are 0 in every later step, and
the integers of a program are 0 there too: `convert` refuses anything else, and `verify` proves it.
"""

from photomask.chip.pruning.base import Moment, PrunableWeight, Pruner
from photomask.chip.pruning.contract import check_pruner
from photomask.chip.pruning.granet import GraNet
from photomask.chip.pruning.magnitude import Magnitude
from photomask.chip.pruning.one_shot import clear_pruned, prune
from photomask.chip.pruning.report import LayerPruning, PruningReport, report_of
from photomask.chip.pruning.rigl import RigL
from photomask.chip.pruning.scheduled import PruningSchedule, ScheduledPruning
from photomask.chip.pruning.snip import Snip
from photomask.chip.pruning.sparse_refinement import SparseRefinement
from photomask.chip.pruning.wanda import Wanda
from photomask.chip.sparsity import Blocks, NofM

__all__ = [
    "Blocks",
    "GraNet",
    "LayerPruning",
    "Magnitude",
    "Moment",
    "NofM",
    "PrunableWeight",
    "Pruner",
    "PruningReport",
    "PruningSchedule",
    "RigL",
    "ScheduledPruning",
    "Snip",
    "SparseRefinement",
    "Wanda",
    "check_pruner",
    "clear_pruned",
    "prune",
    "report_of",
]

"""Searches recipes, widths, prunings and hardware for design points that nothing else dominates.

found = explore(model, images, test=(test_images, labels), trials=50, storage="study.journal")
print(found)
found.front().points[0].save("best")

Optuna chooses the points, stores the trials, and spreads them over processes and machines.
"""

from photomask.chip.exploration.evaluation import Evaluator, accumulator_bits, weight_bytes
from photomask.chip.exploration.exploring import explore
from photomask.chip.exploration.identity import StudyIdentity
from photomask.chip.exploration.pictures import save_front_picture
from photomask.chip.exploration.points import (
    DesignPoint,
    ExploredPoint,
    Measurement,
    Metric,
    PruningChoice,
)
from photomask.chip.exploration.results import Exploration, Front
from photomask.chip.exploration.space import LayerGroup, SearchSpace

__all__ = [
    "DesignPoint",
    "Evaluator",
    "Exploration",
    "ExploredPoint",
    "Front",
    "LayerGroup",
    "Measurement",
    "Metric",
    "PruningChoice",
    "SearchSpace",
    "StudyIdentity",
    "accumulator_bits",
    "explore",
    "save_front_picture",
    "weight_bytes",
]

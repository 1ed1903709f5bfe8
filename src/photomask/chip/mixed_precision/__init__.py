"""Chooses the width in bits of each tensor by its effect on the outputs and by its cost.

sensitivities = measure_sensitivity(prepared, images)
costs = weight_bit_costs(prepared, sensitivities)
allocation = allocate(prepared, sensitivities, costs, uniform_cost(sensitivities, costs, 4))
recipe = allocation.recipe(prepared)
"""

from photomask.chip.mixed_precision.allocation import Allocation, ParetoPoint, allocate, pareto
from photomask.chip.mixed_precision.costs import (
    Costs,
    bit_operation_costs,
    cycle_costs,
    uniform_cost,
    weight_bit_costs,
)
from photomask.chip.mixed_precision.pictures import save_pareto_curve
from photomask.chip.mixed_precision.sensitivity import (
    Measure,
    Sensitivities,
    Sensitivity,
    measure_sensitivity,
)

__all__ = [
    "Allocation",
    "Costs",
    "Measure",
    "ParetoPoint",
    "Sensitivities",
    "Sensitivity",
    "allocate",
    "bit_operation_costs",
    "cycle_costs",
    "measure_sensitivity",
    "pareto",
    "save_pareto_curve",
    "uniform_cost",
    "weight_bit_costs",
]

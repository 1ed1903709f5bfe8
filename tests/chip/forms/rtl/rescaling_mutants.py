"""What a fault planted in the RTL is, and the faults of its rescaling."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """An expression of the RTL that occurs once in its file, and a wrong one."""

    name: str
    file: str
    right: str
    wrong: str


FLOOR = "biased >>> shift"
RESCALING_MUTANTS = (
    Mutant(
        "rounds halves down",
        "requantize_unit",
        FLOOR,
        "(biased - (shift == 0 ? 0 : product_t'(1))) >>> shift",
    ),
    Mutant(
        "rounds halves to even",
        "requantize_unit",
        FLOOR,
        "(biased >>> shift) - ((biased >>> shift) & "
        "product_t'(shift != 0 && ((biased >>> shift) <<< shift) == biased))",
    ),
    Mutant(
        "rounds halves away from zero",
        "requantize_unit",
        FLOOR,
        "product < 0 ? -((half - product) >>> shift) : (biased >>> shift)",
    ),
    Mutant("rounds toward zero", "requantize_unit", FLOOR, "product / (product_t'(1) <<< shift)"),
    Mutant(
        "shifts by one bit too many",
        "vector_unit",
        "parameters[lane*PARAMETER_BITS+:6]",
        "parameters[lane*PARAMETER_BITS+:6] + 6'd1",
    ),
    Mutant(
        "shifts by one bit too few",
        "vector_unit",
        "parameters[lane*PARAMETER_BITS+:6]",
        "parameters[lane*PARAMETER_BITS+:6] - 6'd1",
    ),
    Mutant(
        "does not saturate at the low end",
        "requantize_unit",
        "moved < product_t'(low)",
        "1'b0",
    ),
    Mutant(
        "does not saturate at the high end",
        "requantize_unit",
        "moved > product_t'(high)",
        "1'b0",
    ),
)
"""Faults of a design whose target rounds halves up, by what the diagnosis says of them."""

"""From an integer program to C: types and loops, no engine and no golden vectors."""

from photomask.chip.c_source.project import CONSTANTS_FILE, CSource, Weights, generate_c

__all__ = ["CONSTANTS_FILE", "CSource", "Weights", "generate_c"]

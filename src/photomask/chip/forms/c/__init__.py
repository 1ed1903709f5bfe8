"""A program as C11: types, loops, a memory plan, and a project that checks itself."""

from photomask.chip.forms.c.export import export_c
from photomask.chip.forms.c.project import CONSTANTS_FILE, CSource, Weights, generate_c

__all__ = ["CONSTANTS_FILE", "CSource", "Weights", "export_c", "generate_c"]

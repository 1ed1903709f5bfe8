"""Damaged copies of every kind of file that the package reads, and oracles that judge the readers.

Nothing here asks the package what a file says: JSON is parsed with the standard library, tensors
with `struct` and NumPy, and hashes are computed again from those.
"""

from .catalogue import KINDS, make_specimens
from .damaging import damage
from .specimen import Kind, RefusedError, Specimen, WrongError
from .workers import Task, Verdict, judge, run_all

__all__ = [
    "KINDS",
    "Kind",
    "RefusedError",
    "Specimen",
    "Task",
    "Verdict",
    "WrongError",
    "damage",
    "judge",
    "make_specimens",
    "run_all",
]

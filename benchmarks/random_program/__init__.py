"""Random valid integer programs over every operator."""

from .programs import merged, random_codes, random_program

__all__ = ["merged", "random_codes", "random_program"]

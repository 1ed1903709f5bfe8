"""One emitter for every operator: from a step to the body of its function."""

from photomask.chip.c_source.emitters.table import ABSORBING, EMITTERS

__all__ = ["ABSORBING", "EMITTERS"]

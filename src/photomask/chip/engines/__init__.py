"""Executors of integer programs: the NumPy oracle and the fast torch engine."""

from photomask.chip.engines.numpy_engine import NumpyEngine
from photomask.chip.engines.torch_engine import TorchEngine

__all__ = ["NumpyEngine", "TorchEngine"]

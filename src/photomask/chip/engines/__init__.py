"""Executors of integer programs: the NumPy oracle, the fast torch engine, ONNX Runtime, C."""

from photomask.chip.engines.c_engine import CEngine
from photomask.chip.engines.numpy_engine import NumpyEngine
from photomask.chip.engines.onnx_engine import OnnxEngine
from photomask.chip.engines.torch_engine import TorchEngine

__all__ = ["CEngine", "NumpyEngine", "OnnxEngine", "TorchEngine"]

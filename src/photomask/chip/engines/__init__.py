"""Fast engines for integer programs: PyTorch, compiled C and ONNX Runtime."""

from photomask.chip.engines.c_engine import CEngine
from photomask.chip.engines.onnx_engine import OnnxEngine
from photomask.chip.engines.torch_engine import TorchEngine

__all__ = ["CEngine", "OnnxEngine", "TorchEngine"]

"""Makes the ONNX forms of a program as models in memory, and saves such models."""

from photomask.chip.forms.deeploy import DeeployModel, deeploy_model
from photomask.chip.forms.onnx import integer_model
from photomask.chip.forms.onnx_builder import save_onnx
from photomask.chip.forms.qdq import qdq_model
from photomask.chip.forms.qonnx import qonnx_model

__all__ = [
    "DeeployModel",
    "deeploy_model",
    "integer_model",
    "qdq_model",
    "qonnx_model",
    "save_onnx",
]

"""Integer programs as ONNX models."""

from photomask.chip.onnx_models.deeploy import DeeployModel, deeploy_model
from photomask.chip.onnx_models.graph_builder import save_onnx
from photomask.chip.onnx_models.integer import integer_model
from photomask.chip.onnx_models.qdq import qdq_model
from photomask.chip.onnx_models.qonnx import qonnx_model

__all__ = [
    "DeeployModel",
    "deeploy_model",
    "integer_model",
    "qdq_model",
    "qonnx_model",
    "save_onnx",
]

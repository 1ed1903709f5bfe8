"""Integer programs as ONNX models."""

from photomask.chip.onnx_models.graph_builder import save_onnx

__all__ = ["save_onnx"]

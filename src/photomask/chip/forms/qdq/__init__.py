"""A program as an ONNX model of quantizing and dequantizing nodes."""

from photomask.chip.forms.qdq.export import qdq_model

__all__ = ["qdq_model"]

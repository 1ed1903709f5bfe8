"""Imports ONNX models that another tool has quantized with QuantizeLinear and DequantizeLinear.

An ONNX file is untrusted input, so everything in it is bounded and checked before it is used.
"""

from photomask.chip.onnx_import.importing import import_qdq

__all__ = ["import_qdq"]

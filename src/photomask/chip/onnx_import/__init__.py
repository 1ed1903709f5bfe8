"""Import of ONNX models that another tool has quantized: what lies between its Q and DQ nodes.

An ONNX file is untrusted input: everything in it is bounded and checked before it is used.
"""

from photomask.chip.onnx_import.importing import import_qdq

__all__ = ["import_qdq"]

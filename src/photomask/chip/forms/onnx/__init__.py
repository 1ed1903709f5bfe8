"""A program as an ONNX model of integers alone, which computes the same integers on every edge."""

from photomask.chip.forms.onnx.export import integer_model

__all__ = ["integer_model"]

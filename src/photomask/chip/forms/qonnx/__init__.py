"""A program in QONNX, the dialect of FINN and hls4ml."""

from photomask.chip.forms.qonnx.export import qonnx_model

__all__ = ["qonnx_model"]

"""The QONNX form: a program in the ONNX dialect of FINN and hls4ml."""

from photomask.chip.forms.qonnx import convolution as convolution
from photomask.chip.forms.qonnx import elementwise as elementwise
from photomask.chip.forms.qonnx import moving as moving
from photomask.chip.forms.qonnx import pooling as pooling
from photomask.chip.forms.qonnx import products as products
from photomask.chip.forms.qonnx import requantize as requantize
from photomask.chip.forms.qonnx import transformers as transformers
from photomask.chip.forms.qonnx.export import QonnxForm, qonnx_model

__all__ = ["QonnxForm", "qonnx_model"]

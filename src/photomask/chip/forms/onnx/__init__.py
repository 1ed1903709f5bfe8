"""The ONNX form: a model of integers alone that computes the program's integers on every edge."""

from photomask.chip.forms.onnx import convolution as convolution
from photomask.chip.forms.onnx import elementwise as elementwise
from photomask.chip.forms.onnx import moving as moving
from photomask.chip.forms.onnx import pooling as pooling
from photomask.chip.forms.onnx import products as products
from photomask.chip.forms.onnx import requantize as requantize
from photomask.chip.forms.onnx import transformers as transformers
from photomask.chip.forms.onnx.export import OnnxForm, integer_model

__all__ = ["OnnxForm", "integer_model"]

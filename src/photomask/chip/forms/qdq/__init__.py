"""The QDQ form: an ONNX model of float operators between QuantizeLinear and DequantizeLinear."""

from photomask.chip.forms.qdq import convolution as convolution
from photomask.chip.forms.qdq import elementwise as elementwise
from photomask.chip.forms.qdq import moving as moving
from photomask.chip.forms.qdq import pooling as pooling
from photomask.chip.forms.qdq import products as products
from photomask.chip.forms.qdq import requantize as requantize
from photomask.chip.forms.qdq import transformers as transformers
from photomask.chip.forms.qdq.export import QdqForm, qdq_model

__all__ = ["QdqForm", "qdq_model"]

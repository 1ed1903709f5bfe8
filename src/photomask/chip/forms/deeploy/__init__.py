"""The Deeploy form: a program in the ONNX dialect of Deeploy, as a folder for its test runner."""

from photomask.chip.forms.deeploy import convolution as convolution
from photomask.chip.forms.deeploy import elementwise as elementwise
from photomask.chip.forms.deeploy import moving as moving
from photomask.chip.forms.deeploy import pooling as pooling
from photomask.chip.forms.deeploy import products as products
from photomask.chip.forms.deeploy import requantize as requantize
from photomask.chip.forms.deeploy import transformers as transformers
from photomask.chip.forms.deeploy.export import DeeployForm, DeeployModel, deeploy_model

__all__ = ["DeeployForm", "DeeployModel", "deeploy_model"]

"""A program in the ONNX dialect of Deeploy, as a folder of its tests."""

from photomask.chip.forms.deeploy.export import export_deeploy
from photomask.chip.forms.deeploy.model import DeeployModel, deeploy_model

__all__ = ["DeeployModel", "deeploy_model", "export_deeploy"]

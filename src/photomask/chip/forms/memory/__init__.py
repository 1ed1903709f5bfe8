"""A program as memory images, golden vectors and a manifest, and the checks of all of them."""

from photomask.chip.forms.memory.check_report import CheckReport, EdgeResult, Mismatch
from photomask.chip.forms.memory.export import export
from photomask.chip.forms.memory.export_check import check_export
from photomask.chip.forms.memory.golden_inputs import golden_inputs
from photomask.chip.forms.memory.image import Encoding
from photomask.chip.forms.memory.manifest import Manifest
from photomask.chip.forms.memory.output_check import check_outputs

__all__ = [
    "CheckReport",
    "EdgeResult",
    "Encoding",
    "Manifest",
    "Mismatch",
    "check_export",
    "check_outputs",
    "export",
    "golden_inputs",
]

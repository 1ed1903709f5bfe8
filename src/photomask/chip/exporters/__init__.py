"""What leaves Photomask for a hardware team, and the check that it is right."""

from photomask.chip.exporters.c_project import export_c
from photomask.chip.exporters.check_report import CheckReport, EdgeResult, Mismatch
from photomask.chip.exporters.deeploy_folder import export_deeploy
from photomask.chip.exporters.export_check import check_export
from photomask.chip.exporters.folder import export
from photomask.chip.exporters.golden_inputs import golden_inputs
from photomask.chip.exporters.manifest import Manifest
from photomask.chip.exporters.memory_image import Encoding
from photomask.chip.exporters.output_check import check_outputs
from photomask.chip.exporters.packing import Packing, pack, unpack

__all__ = [
    "CheckReport",
    "EdgeResult",
    "Encoding",
    "Manifest",
    "Mismatch",
    "Packing",
    "check_export",
    "check_outputs",
    "export",
    "export_c",
    "export_deeploy",
    "golden_inputs",
    "pack",
    "unpack",
]

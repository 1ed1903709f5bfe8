"""The forms in which a program leaves, the one function that writes them, and their contract."""

from photomask.chip.forms.c import CForm
from photomask.chip.forms.catalogue import FORMS, load_form
from photomask.chip.forms.contract import check_form
from photomask.chip.forms.deeploy import DeeployForm
from photomask.chip.forms.exporting import export
from photomask.chip.forms.form import Form, FormCheck, Sample
from photomask.chip.forms.memory import Manifest, MemoryForm
from photomask.chip.forms.onnx import OnnxForm
from photomask.chip.forms.qdq import QdqForm
from photomask.chip.forms.qonnx import QonnxForm
from photomask.chip.forms.rtl import RtlForm
from photomask.chip.forms.support import support_matrix
from photomask.chip.forms.writers import Problem, Writers, each_step, require_none

__all__ = [
    "FORMS",
    "CForm",
    "DeeployForm",
    "Form",
    "FormCheck",
    "Manifest",
    "MemoryForm",
    "OnnxForm",
    "Problem",
    "QdqForm",
    "QonnxForm",
    "RtlForm",
    "Sample",
    "Writers",
    "check_form",
    "each_step",
    "export",
    "load_form",
    "require_none",
    "support_matrix",
]

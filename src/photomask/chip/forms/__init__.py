"""The forms in which a program leaves, the one function that writes them, and their contract."""

from photomask.chip.forms.catalogue import FORMS, load_form
from photomask.chip.forms.contract import check_form
from photomask.chip.forms.exporting import export
from photomask.chip.forms.form import Form, FormCheck, Sample
from photomask.chip.forms.memory import Manifest, MemoryForm
from photomask.chip.forms.rtl import RtlForm
from photomask.chip.forms.support import support_matrix
from photomask.chip.forms.writers import Problem, Writers, each_step, require_none

__all__ = [
    "FORMS",
    "Form",
    "FormCheck",
    "Manifest",
    "MemoryForm",
    "Problem",
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

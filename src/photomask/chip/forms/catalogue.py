"""The forms that come with the package, and the function that finds one by its name."""

from typing import Any

from photomask.chip.forms.c import CForm
from photomask.chip.forms.deeploy import DeeployForm
from photomask.chip.forms.form import Form, require_form
from photomask.chip.forms.memory import MemoryForm
from photomask.chip.forms.onnx import OnnxForm
from photomask.chip.forms.qdq import QdqForm
from photomask.chip.forms.qonnx import QonnxForm
from photomask.chip.forms.rtl import RtlForm
from photomask.errors import UsageError
from photomask.user_files import evaluate

FORMS: tuple[Form[Any], ...] = (
    MemoryForm(),
    CForm(),
    OnnxForm(),
    QdqForm(),
    QonnxForm(),
    DeeployForm(),
    RtlForm(),
)
"""Every form of the package, with its default settings."""


def load_form(form: str | Form[Any]) -> Form[Any]:
    """Returns a form by its name, or a form of the user's own.

    Args:
        form: the name of one of `FORMS`; or `path/to/file.py:attribute`, where the attribute is a
            form, or a function or class that makes one without arguments; or a form, which is
            returned unchanged.

    Raises:
        UsageError: there is no form of that name, no such file or attribute, or running the file
            failed.
        FormError: the object breaks the contract of a form.
    """
    if not isinstance(form, str):
        require_form(form)
        return form
    if ":" in form:
        own = evaluate(form)
        require_form(own)
        return own
    for known in FORMS:
        if known.name == form:
            return known
    names = ", ".join(known.name for known in FORMS)
    raise UsageError(
        f"there is no form {form!r}: choose from {names}, or give path/to/file.py:function"
    )

"""The forms that come with the package, and how a user names one."""

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
"""Every form of the package, with its usual settings."""


def load_form(form: str | Form[Any]) -> Form[Any]:
    """Returns a form by its name, or a user's own.

    Args:
        form: the name of one of `FORMS`; or `path/to/file.py:attribute`, where the attribute is a
            form, or a function or class that makes one without arguments; or a form, which is
            returned as it is.

    Raises:
        UsageError: there is no form of that name, no such file or attribute, or running it failed.
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
    raise UsageError(f"no form {form!r}: choose from {names}, or give path/to/file.py:function")

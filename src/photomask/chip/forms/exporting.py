"""The one function that writes a program in a form."""

import os
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from photomask.chip.forms.catalogue import load_form
from photomask.chip.forms.form import Form
from photomask.chip.forms.golden import single_samples
from photomask.chip.forms.memory import Manifest
from photomask.chip.program import IntegerProgram
from photomask.chip.program.codes import Inputs
from photomask.errors import FormError, UsageError
from photomask.stages import stage

Written = TypeVar("Written")


@overload
def export(
    program: IntegerProgram,
    place: str | Path,
    inputs: Inputs | None = None,
    *,
    form: Literal["memory"] = "memory",
    samples: int | None = None,
) -> Manifest: ...


@overload
def export(
    program: IntegerProgram,
    place: str | Path,
    inputs: Inputs | None = None,
    *,
    form: Form[Written],
    samples: int | None = None,
) -> Written: ...


@overload
def export(
    program: IntegerProgram,
    place: str | Path,
    inputs: Inputs | None = None,
    *,
    form: str,
    samples: int | None = None,
) -> Any: ...


@stage(__name__, "export")
def export(
    program: IntegerProgram,
    place: str | Path,
    inputs: Inputs | None = None,
    *,
    form: str | Form[Any] = "memory",
    samples: int | None = None,
) -> Any:
    """Writes a program in a form: memory images, C, ONNX, RTL, or one of your own.

    What is written appears whole or not at all, and replaces what was exported there earlier. The
    same program and inputs give the same bytes.

    Args:
        program: what to export.
        place: the file or folder to write.
        inputs: int64 codes that golden vectors are made from, batch first
            (`program.quantize_input` makes them); a mapping by input name where the program has
            several inputs. May be left out for a form without golden vectors.
        form: the name of one of `FORMS`, `path/to/file.py:function` for one of your own, or an
            object: `CForm(weights="binary")`.
        samples: how many samples of `inputs` become golden vectors; None takes all.

    Returns:
        What the form tells about what it wrote; the manifest of memory images.

    Raises:
        UsageError: there is no such form, or `samples` of no inputs.
        DataError: the inputs do not fit the program, or the form needs some.
        FormError: the form has no way to express some steps, which the message lists; or it breaks
            the contract of a form.
        ExportError: the place holds something else, or the disk refused a file.
    """
    chosen = load_form(form)
    if inputs is None and samples is not None:
        raise UsageError(f"asked for {samples} samples without inputs; give inputs")
    batch = [] if inputs is None else single_samples(program, inputs, samples)
    written = chosen.export(program, Path(place), batch)
    if not os.path.lexists(place):
        raise FormError(
            f"the form {chosen.name!r} breaks the law of export (without problems, export writes "
            f"its place): there is nothing at {place}"
        )
    return written

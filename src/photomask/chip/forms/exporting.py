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
    """Writes a program in a form: as memory images, C, ONNX, RTL, or in a form of your own.

    The files appear completely or not at all. They replace an earlier export at the same place. The
    same program and inputs always give the same bytes.

    Args:
        program: the program to export.
        place: the file or folder to write.
        inputs: int64 codes that the golden vectors are made from, batch axis first;
            `program.quantize_input` makes them. A mapping by input name if the program has several
            inputs. It may be left out for a form without golden vectors.
        form: the name of one of `FORMS`; or `path/to/file.py:function` for a form of your own; or a
            form object with settings, such as `CForm(weights="binary")`.
        samples: how many samples of `inputs` become golden vectors; None takes all of them.

    Returns:
        What the form's `export` returns about the files that it wrote. Memory images return their
        manifest.

    Raises:
        UsageError: there is no such form, or `samples` is given without inputs.
        DataError: the inputs do not fit the program, or the form needs inputs and got none.
        FormError: the form cannot express some steps, which the message lists; or it breaks the
            contract of a form.
        ExportError: the place holds something else, or a file could not be written to the disk.
    """
    chosen = load_form(form)
    if inputs is None and samples is not None:
        raise UsageError(
            f"asked for {samples} samples without inputs; pass the inputs that the samples are "
            "taken from"
        )
    batch = [] if inputs is None else single_samples(program, inputs, samples)
    written = chosen.export(program, Path(place), batch)
    if not os.path.lexists(place):
        raise FormError(
            f"the form {chosen.name!r} breaks the law of export (without problems, export writes "
            f"its place): there is nothing at {place}"
        )
    return written

"""`photomask chip export`, `estimate`, `simulate`, `import`: programs for others' tools."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from photomask.cli.console import messages
from photomask.cli.options import Export, ExportFolder, GoldenSamples, Json, Target
from photomask.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from photomask.chip import Form
    from photomask.chip.forms import FormCheck

AcceleratorOption = Annotated[
    str, typer.Option(metavar="NAME", help="A preset (reference, edge, …), or a JSON file.")
]


class CommandWithForms(TyperCommand):
    """A command whose help ends with the forms, which are imported only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        from photomask.chip.forms import FORMS

        listed = "\n\n".join(f"{form.name}: {form.title}" for form in FORMS)
        self.epilog = f"NAME is one of these forms:\n\n{listed}"
        super().format_help(ctx, formatter)


def export(
    folder: Export,
    format: Annotated[
        str,
        typer.Option(metavar="NAME", help="What to write: a form, or path/to/file.py:function."),
    ],
    place: Annotated[
        Path | None,
        typer.Option("--output", metavar="PATH", help="Where it goes. Default: inside DIR."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="c: arrays in the source, or a binary file. Default: arrays."),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="rtl: a preset, or a JSON file. Default: reference."),
    ] = None,
    encodings: Annotated[
        list[str] | None,
        typer.Option("--encoding", help="memory: hex, bin, dec or npy; may be repeated."),
    ] = None,
) -> None:
    """Write a program in another form, for the tools of others.

    Steps that the form cannot express are named, all at once, and nothing is written then.

    Example: photomask chip export out/resnet20 --format c
    """
    from photomask.chip import IntegerProgram, load_form
    from photomask.chip import export as export_program

    form = _with_settings(
        load_form(format),
        weights=weights,
        accelerator=accelerator,
        encodings=tuple(encodings) if encodings else None,
    )
    program, path = IntegerProgram.load(folder), place or folder / form.place
    if path.resolve() == folder.resolve():
        raise UsageError(f"{path} is the export that is read; give another folder as --output")
    export_program(program, path, _golden_inputs_of(folder), form=form)
    messages().print(f"written to {path}")


def _with_settings(form: "Form[Any]", **settings: object) -> "Form[Any]":
    """Returns a form with the settings that are not None; refuses those that it does not have."""
    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        return form
    own = [field.name for field in fields(form)] if is_dataclass(form) else []
    if odd := [name for name in given if name not in own]:
        raise UsageError(
            f"the form {form.name!r} has no setting {odd[0]!r}; it has: {', '.join(own) or 'none'}"
        )
    return replace(form, **given)  # type: ignore[type-var]


def _golden_inputs_of(folder: Path) -> "dict[str, np.ndarray] | None":
    """Returns what the golden vectors of a folder are made from; None where it has none."""
    from photomask.chip.forms.memory import golden_inputs
    from photomask.chip.forms.memory.manifest import MANIFEST_FILE

    return golden_inputs(folder) if (folder / MANIFEST_FILE).is_file() else None


def check_written(folder: Path, format: str) -> "FormCheck":
    """Reads back what `export` wrote of a program in a form, and compares it with the oracle.

    Raises:
        UsageError: the folder has no such form.
    """
    from photomask.chip import IntegerProgram, load_form
    from photomask.chip.forms.golden import single_samples

    form, program = load_form(format), IntegerProgram.load(folder)
    place = folder / form.place
    if not place.exists():
        raise UsageError(
            f"there is no {place}; write it with photomask chip export {folder} --format {format}"
        )
    inputs = _golden_inputs_of(folder)
    samples = [] if inputs is None else single_samples(program, inputs, None)
    return form.check(program, place, samples)


def estimate(
    folder: Export,
    accelerator: AcceleratorOption = "reference",
    document: Json = None,
) -> None:
    """Estimate cycles, utilization, traffic and energy of a program on an accelerator.

    Example: photomask chip estimate out/resnet20 --accelerator edge
    """
    from photomask.chip import IntegerProgram
    from photomask.chip.cost import estimate as estimate_program
    from photomask.chip.cost import load_accelerator
    from photomask.documents import write_file

    machine = load_accelerator(accelerator)
    report = estimate_program(IntegerProgram.load(folder), machine)
    typer.echo(str(report))
    if document is not None:
        write_file(document, report.render().encode())


def simulate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `convert` or `export` wrote.")
    ],
    accelerator: AcceleratorOption = "reference",
    engine: Annotated[
        Literal["verilator", "cocotb"],
        typer.Option(help="Verilator alone, or the export's own cocotb test on it."),
    ] = "verilator",
    document: Json = None,
) -> None:
    """Simulate a program on the reference design in RTL, and compare every integer.

    The design runs the network's golden samples and then the conformance vectors, which prove how
    it rounds, shifts and saturates; a fault of these is named.

    An RTL export in DIR/rtl is used as it is, so that another array may stand in it; where there is
    none, it is written first. The last line is JSON. Exit status 1 on a mismatch.

    Example: photomask chip simulate out/resnet20
    """
    from photomask.chip.forms.rtl import simulate as simulate_design
    from photomask.documents import write_file

    report = simulate_design(_rtl_export(folder, accelerator), engine=engine)
    if document is not None:
        write_file(document, report.render().encode())
    typer.echo(str(report))
    names = ("mismatches", "rtl_cycles", "model_cycles")
    rounding = {"rounding_proven": report.rounding_proven}
    typer.echo(json.dumps({name: getattr(report, name) for name in names} | rounding))
    raise typer.Exit(0 if report.passed else 1)


def _rtl_export(folder: Path, accelerator: str) -> Path:
    """Returns the RTL export that a folder is or holds; writes it where there is none."""
    from photomask.chip import IntegerProgram
    from photomask.chip import export as export_program
    from photomask.chip.forms.memory import golden_inputs
    from photomask.chip.forms.rtl import RtlDesign, RtlForm
    from photomask.chip.forms.rtl.design import DESIGN_FILE
    from photomask.errors import DocumentError

    if (folder / DESIGN_FILE).is_file():
        return folder
    form = RtlForm(accelerator=accelerator)
    program, rtl = IntegerProgram.load(folder), folder / form.place
    if not (rtl / DESIGN_FILE).is_file():
        export_program(program, rtl, golden_inputs(folder), form=form, samples=1)
    elif RtlDesign.load(rtl).program_sha256 != program.content_hash():
        raise DocumentError(f"{rtl} is of another program than {folder}; export it again")
    return rtl


def import_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="Quantized by another tool (QDQ).")
    ],
    output_folder: ExportFolder,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Inputs of the golden vectors, as for convert. Default: random."
        ),
    ] = None,
    target: Target = "asic",
    samples: GoldenSamples = 1,
) -> None:
    """Turn an ONNX model that another tool has quantized into an integer program, and export it.

    Example: photomask chip import resnet18.int8.onnx --output out/resnet18
    """
    from photomask.chip import export as export_program
    from photomask.chip import load_target
    from photomask.chip.forms.golden import random_inputs
    from photomask.chip.onnx_import import import_qdq
    from photomask.cli.execution import golden_codes
    from photomask.cli.presentation import show_program
    from photomask.cli.sources import load_inputs

    program = import_qdq(model, load_target(target))
    if data is None:
        golden = random_inputs(program, samples)
    else:
        golden = golden_codes(program, load_inputs(data, samples))
    export_program(program, output_folder, golden, samples=samples)
    show_program(program)
    messages().print(f"written to {output_folder}")

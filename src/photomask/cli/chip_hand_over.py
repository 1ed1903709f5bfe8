"""`photomask chip export`, `estimate`, `simulate`, `import`: programs for others' tools."""

from dataclasses import fields, is_dataclass, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photomask.cli import checks
from photomask.cli.commands import Command
from photomask.cli.console import messages
from photomask.cli.names import completer, names_of
from photomask.cli.options import (
    DATA_HELP,
    Accelerator,
    AcceleratorOfForm,
    Compressions,
    Encodings,
    Export,
    ExportFolder,
    GoldenSamples,
    Json,
    Target,
)
from photomask.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from photomask.chip import Form
    from photomask.chip.forms import FormCheck


class CommandWithForms(Command):
    """A command whose help ends with the forms."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        listed = "\n\n".join(f"{name}: {title}" for name, title in names_of("forms").items())
        self.epilog = f"FORM is one of these:\n\n{listed}"
        super().format_help(ctx, formatter)


def export(
    folder: Export,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORM",
            help="What to write: a form, or path/to/file.py:function.",
            callback=checks.form,
            autocompletion=completer("forms", files=True),
        ),
    ],
    place: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help="Where it goes. Default: inside DIR.",
            callback=checks.output_place,
        ),
    ] = None,
    weights: Annotated[
        Literal["arrays", "binary"] | None,
        typer.Option(
            "--weights",
            help="Form c: weights as arrays in the source, or as a binary file. Default: arrays.",
        ),
    ] = None,
    accelerator: AcceleratorOfForm = None,
    encodings: Encodings = None,
    compression: Compressions = None,
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
        compression=tuple(compression) if compression else None,
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
    accelerator: Accelerator = "reference",
    json: Json = None,
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
    if json is not None:
        write_file(json, report.render().encode())


def simulate(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A folder that `convert` or `export` wrote.",
            callback=checks.design_folder,
        ),
    ],
    accelerator: Accelerator = "reference",
    simulator: Annotated[
        Literal["verilator", "cocotb"],
        typer.Option(
            "--simulator",
            help="Verilator alone, or the export's own cocotb test on it.",
            callback=checks.simulator,
        ),
    ] = "verilator",
    json: Json = None,
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

    report = simulate_design(_rtl_export(folder, accelerator), engine=simulator)
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    names = ("mismatches", "rtl_cycles", "model_cycles")
    rounding = {"rounding_proven": report.rounding_proven}
    typer.echo(dumps({name: getattr(report, name) for name in names} | rounding))
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
        Path,
        typer.Argument(
            metavar="MODEL.onnx",
            help="Quantized by another tool (QDQ).",
            callback=checks.onnx_file,
        ),
    ],
    output_folder: ExportFolder,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help=f"What the golden vectors are made from: {DATA_HELP} Default: random inputs.",
            callback=checks.data,
            autocompletion=completer("data", files=True),
        ),
    ] = None,
    target: Target = "asic",
    golden_samples: GoldenSamples = 1,
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
        golden = random_inputs(program, golden_samples)
    else:
        golden = golden_codes(program, load_inputs(data, golden_samples))
    export_program(program, output_folder, golden, samples=golden_samples)
    show_program(program)
    messages().print(f"written to {output_folder}")

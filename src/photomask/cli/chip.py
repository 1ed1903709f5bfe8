"""`photomask chip`: from a float model to an integer program, and the proof."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photomask.cli import checks
from photomask.cli.chip_explore import explore
from photomask.cli.chip_hand_over import (
    CommandWithForms,
    check_written,
    estimate,
    export,
    import_model,
    simulate,
)
from photomask.cli.chip_pretrain import pretrain
from photomask.cli.chip_prune import prune
from photomask.cli.chip_search import search
from photomask.cli.chip_train import train
from photomask.cli.chip_tune import tune
from photomask.cli.commands import command
from photomask.cli.console import messages, progress
from photomask.cli.names import completer
from photomask.cli.options import (
    AcceleratorOfReport,
    CalibrationSamples,
    Data,
    Device,
    Encodings,
    EngineName,
    Export,
    ExportFolder,
    GoldenSamples,
    Html,
    Json,
    Labels,
    Model,
    Recipe,
    Target,
)
from photomask.errors import UsageError

if TYPE_CHECKING:
    from photomask.chip import Report, Thresholds

app = typer.Typer(
    help="Float model → integer program, and everything that verifies it.", no_args_is_help=True
)


@command(app)
def convert(
    model: Model,
    data: Data,
    output_folder: ExportFolder,
    recipe: Recipe = "w8a8",
    target: Target = "asic",
    calibration_samples: CalibrationSamples = None,
    golden_samples: GoldenSamples = 1,
    encodings: Encodings = None,
) -> None:
    """Convert a float model to an integer program and export it for a hardware team.

    The folder holds the program, its memory images, golden vectors and a manifest.

    Example: photomask chip convert resnet20 --data fashion-mnist --output out/resnet20
    """
    from photomask.chip import calibrate, load_recipe, load_target, prepare
    from photomask.chip import convert as convert_model
    from photomask.chip import export as export_program
    from photomask.chip.forms import MemoryForm
    from photomask.cli.execution import golden_codes
    from photomask.cli.presentation import show_program
    from photomask.cli.sources import first_of, load_inputs
    from photomask.zoo import load_model

    asked, hardware = load_recipe(recipe), load_target(target)
    network, images = load_model(model), load_inputs(data, calibration_samples)
    prepared = prepare(network, asked, first_of(images, 1), target=hardware)
    calibrate(prepared, images, progress=progress())
    program = convert_model(prepared, hardware)
    golden = golden_codes(program, first_of(images, golden_samples))
    form = MemoryForm(encodings=tuple(encodings or ["hex"]))
    export_program(program, output_folder, golden, form=form)
    show_program(program)
    messages().print(f"written to {output_folder}")


@command(app)
def run(
    folder: Export,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            metavar="X.npy",
            help="Floats, or the program's integers: one .npy file per input, or a .npz file.",
            callback=checks.input_files,
        ),
    ],
    result: Annotated[
        Path,
        typer.Option(
            "--output",
            metavar="Y.npy",
            help="Where the result goes.",
            callback=checks.output_file,
        ),
    ],
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            help="The fast one, the oracle, compiled C, or ONNX Runtime.",
            callback=checks.engine,
        ),
    ] = "torch",
    real: Annotated[
        bool, typer.Option("--real", help="Write real values instead of integers.")
    ] = False,
) -> None:
    """Run an integer program.

    Floats are quantized as the program says; integers go in as they are. Several outputs are
    written to Y.NAME.npy, one file each.

    Example: photomask chip run out/resnet20 --input x.npy --output y.npy
    """
    from photomask.chip import IntegerProgram
    from photomask.cli.execution import run_program
    from photomask.cli.sources import load_arrays, save_arrays

    program = IntegerProgram.load(folder)
    save_arrays(result, run_program(program, load_arrays(inputs), engine, real=real))


TestSamples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        min=1,
        help="How many samples of the data to verify on. Default: all.",
    ),
]
OracleSamples = Annotated[
    int | None,
    typer.Option(
        "--oracle-samples",
        metavar="N",
        min=1,
        help="How many of them to run on both engines. Default: as many as its size allows.",
    ),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option(
        "--thresholds",
        metavar="FILE.json",
        help="When the program passes.",
        callback=checks.present_file,
    ),
]


@command(app)
def verify(
    model: Model,
    folder: Export,
    data: Data,
    labels: Labels = None,
    samples: TestSamples = None,
    oracle_samples: OracleSamples = None,
    thresholds: ThresholdsFile = None,
    accelerator: AcceleratorOfReport = None,
    device: Device = None,
    json: Json = None,
    html: Html = None,
) -> None:
    """Compare an export with the float model that it was made from.

    Accuracy, signal and noise of every layer, both engines integer by integer, and every file of
    the export. Exit status 1 if a threshold is missed or a file is wrong.

    Example: photomask chip verify resnet20 out/resnet20 --data fashion-mnist --html report.html
    """
    from photomask.chip import IntegerProgram
    from photomask.chip import verify as verify_program
    from photomask.chip.forms.memory import check_export
    from photomask.cli.presentation import show_check, show_report
    from photomask.cli.sources import device_of, load_test_data
    from photomask.zoo import load_model

    place = device_of(device)
    program, network = IntegerProgram.load(folder), load_model(model)
    images, classes = load_test_data(data, labels, samples)
    report = verify_program(
        network,
        program,
        images,
        classes,
        accelerator=accelerator,
        thresholds=_thresholds_of(thresholds),
        oracle_samples=oracle_samples,
        device=place,
        progress=progress(),
    )
    show_report(report)
    files = check_export(folder)
    show_check(files)
    _write_report(report, json, html)
    raise typer.Exit(0 if report.passed and files.passed else 1)


def _write_report(report: "Report", json: Path | None, html: Path | None) -> None:
    """Writes a report as a document and as a page, each where it is asked for."""
    from photomask.chip import write_html
    from photomask.documents import write_file

    if json is not None:
        write_file(json, report.render().encode())
    if html is not None:
        write_html(report, html)


def _thresholds_of(path: Path | None) -> "Thresholds":
    """Reads when a program passes; without a file, the usual."""
    from photomask.chip import Thresholds
    from photomask.documents import read_text

    return Thresholds.parse(read_text(path), str(path)) if path else Thresholds()


@command(app)
def check(
    folder: Export,
    simulator_output: Annotated[
        Path | None,
        typer.Argument(
            metavar="SIMULATOR_OUTPUT",
            help="A folder laid out like golden/.",
            callback=checks.present_folder,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="Check what `export` wrote in this form instead.",
            callback=checks.form,
            autocompletion=completer("forms", files=True),
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Compare what a simulator wrote with an export's golden vectors, or check the export itself.

    Names the first integer that differs, and the step to look at. Exit status 1 on a mismatch.

    The export itself is checked first; if it is damaged, the exit status is 2. Results of the
    conformance vectors, in SIMULATOR_OUTPUT/conformance, prove how the simulator rounds. Without
    them the report says that the rounding is not proven, and the exit status is that of the rest.

    Without SIMULATOR_OUTPUT, the export, or the form that `export --format NAME` put into it, is
    read back, run, and compared with the oracle.

    Example: photomask chip check out/resnet20 simulated
    """
    if simulator_output is not None and format is not None:
        raise UsageError("a simulator's output is compared with memory images; leave out --format")
    from photomask.chip.forms.memory import check_outputs
    from photomask.documents import write_file

    if simulator_output is None:
        form = format or "memory"
        found = check_written(folder, form)
        typer.echo(str(found))
        if json is not None:
            write_file(json, found.document(form).render().encode())
        raise typer.Exit(0 if found.passed else 1)
    report = check_outputs(folder, simulator_output)
    typer.echo(str(report))
    if json is not None:
        write_file(json, report.render().encode())
    raise typer.Exit(0 if report.passed else 1)


@command(app)
def show(folder: Export) -> None:
    """Show an integer program: its steps, formats, sizes and accumulators.

    Example: photomask chip show out/resnet20
    """
    from photomask.chip import IntegerProgram
    from photomask.cli.presentation import show_program

    show_program(IntegerProgram.load(folder))


command(app, cls=CommandWithForms)(export)
command(app)(estimate)
command(app)(simulate)
command(app)(search)
command(app)(explore)
command(app)(tune)
command(app)(pretrain)
command(app)(prune)
command(app)(train)
command(app, "import")(import_model)

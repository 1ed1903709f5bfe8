"""`photomask chip tune`: roundings, scales and biases learned from a few hundred samples."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from photomask.cli import checks
from photomask.cli.console import messages, progress
from photomask.cli.options import (
    CalibrationSamples,
    Data,
    Device,
    ExportFolder,
    GoldenSamples,
    Json,
    Model,
    Recipe,
    Seed,
    Target,
)
from photomask.errors import UsageError

Smoothing = Annotated[
    float | None,
    typer.Option(
        "--smooth",
        metavar="STRENGTH",
        min=0.0,
        max=1.0,
        help="First centre what norms make, and move this much of its ranges into weights: "
        "transformers with 4-bit activations gain from 0.7.",
    ),
]


GranularityName = Annotated[
    Literal["layer", "block", "network"],
    typer.Option("--granularity", help="What learns at a time."),
]
Iterations = Annotated[
    int, typer.Option("--iterations", metavar="N", min=1, help="Steps for each of them.")
]


def tune(
    model: Model,
    data: Data,
    output_folder: ExportFolder,
    recipe: Recipe = "w4a8",
    target: Target = "asic",
    calibration_samples: CalibrationSamples = None,
    golden_samples: GoldenSamples = 1,
    smoothing: Smoothing = None,
    granularity: GranularityName = "block",
    iterations: Iterations = 1000,
    seed: Seed = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="DIR",
            help="Keep blocks that are done here, and go on behind them.",
            callback=checks.output_place,
        ),
    ] = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Convert a model as `convert` does, after its blocks have learned how weights are rounded.

    Every figure that is shown is of the codes that are exported.

    Example: photomask chip tune resnet20 --data fashion-mnist --recipe w4a4 --output out/r
    """
    from photomask.chip import calibrate, convert, export, load_recipe, load_target, prepare
    from photomask.chip.equalization import smooth
    from photomask.chip.reconstruction import ReconstructionSettings, reconstruct
    from photomask.cli.execution import golden_codes
    from photomask.cli.sources import device_of, first_of, load_inputs
    from photomask.documents import write_file
    from photomask.zoo import load_model

    place = device_of(device)
    asked, hardware = load_recipe(recipe), load_target(target)
    settings = ReconstructionSettings(
        granularity=granularity, iterations=iterations, seed=seed or 0
    )
    network, images = load_model(model), load_inputs(data, calibration_samples)
    prepared = prepare(network, asked, first_of(images, 1), target=hardware)
    if smoothing is not None and not smooth(prepared, images, strength=smoothing, shift=True):
        raise UsageError(f"{model!r} has no norm that only layers read: leave out --smooth")
    calibrate(prepared, images, progress=progress())
    report = reconstruct(
        prepared,
        images,
        settings=settings,
        checkpoint=checkpoint,
        device=place,
        progress=progress(),
    )
    program = convert(prepared, hardware)
    export(program, output_folder, golden_codes(program, first_of(images, golden_samples)))
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    messages().print(f"written to {output_folder}")

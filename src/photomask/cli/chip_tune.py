"""`photomask chip tune`: roundings, scales and biases learned from a few hundred samples."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from photomask.cli.console import messages, show_progress
from photomask.cli.options import (
    CalibrationSamples,
    Data,
    Device,
    ExportFolder,
    GoldenSamples,
    Json,
    Model,
    Recipe,
    Target,
)

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


def tune(
    model: Model,
    data: Data,
    output_folder: ExportFolder,
    recipe: Recipe = "w4a8",
    target: Target = "asic",
    calibration_samples: CalibrationSamples = None,
    smoothing: Smoothing = None,
    granularity: Annotated[
        Literal["layer", "block", "network"], typer.Option(help="What learns at a time.")
    ] = "block",
    iterations: Annotated[int, typer.Option(min=1, help="Steps for each of them.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn at random.")] = 0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep blocks that are done here, and go on behind them."),
    ] = None,
    device: Device = None,
    json: Json = None,
    samples: GoldenSamples = 1,
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
    from photomask.errors import UsageError
    from photomask.zoo import load_model

    asked, hardware = load_recipe(recipe), load_target(target)
    settings = ReconstructionSettings(granularity=granularity, iterations=iterations, seed=seed)
    network, images = load_model(model), load_inputs(data, calibration_samples)
    prepared = prepare(network, asked, first_of(images, 1))
    if smoothing is not None and not smooth(prepared, images, strength=smoothing, shift=True):
        raise UsageError(f"{model!r} has no norm that only layers read: leave out --smooth")
    calibrate(prepared, images)
    report = reconstruct(
        prepared,
        images,
        settings=settings,
        checkpoint=checkpoint,
        device=device_of(device),
        progress=show_progress,
    )
    program = convert(prepared, hardware)
    export(program, output_folder, golden_codes(program, first_of(images, samples)))
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    messages().print(f"written to {output_folder}")

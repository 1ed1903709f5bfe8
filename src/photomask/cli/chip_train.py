"""`photomask chip train`: weights and scales learn to be integers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photomask.cli.console import messages, show_progress
from photomask.cli.options import (
    DATA_HELP,
    Device,
    ExportFolder,
    GoldenSamples,
    Json,
    Model,
    Recipe,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from photomask.chip import PreparedModel
    from photomask.chip import Recipe as RecipeObject
    from photomask.chip.training import TrainingSettings
    from photomask.zoo import Samples

TrainingData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help=f"{DATA_HELP} Or the folder of Fashion-MNIST's idx files, 60,000 images.",
    ),
]
TrainingLabels = Annotated[
    Path | None,
    typer.Option(metavar="Y.npy", help="The right classes; without any, the model teaches."),
]
Settings = Annotated[Path | None, typer.Option(metavar="FILE.json", help="The whole schedule.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Samples of a step.")]
LearningRate = Annotated[float | None, typer.Option(help="Of weights and biases.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all that is random.")]
BatchNorms = Annotated[
    bool, typer.Option("--batch-norms", help="Normalise by the batch until the last epochs.")
]
Augment = Annotated[
    bool, typer.Option("--augment", help="Crops, flips and erasing, as for Fashion-MNIST.")
]
Compiled = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]
Checkpoint = Annotated[Path | None, typer.Option(metavar="DIR", help="Where every epoch is kept.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")]
Weights = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the trained weights.")]


def train(
    model: Model,
    data: TrainingData,
    output_folder: ExportFolder,
    labels: TrainingLabels = None,
    recipe: Recipe = "w4a4-lsq",
    target: Target = "asic",
    settings: Settings = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    batch_norms: BatchNorms = False,
    augment: Augment = False,
    compiled: Compiled = False,
    checkpoint: Checkpoint = None,
    resume: Resume = False,
    weights: Weights = None,
    json: Json = None,
    device: Device = None,
    samples: GoldenSamples = 1,
) -> None:
    """Train a model with quantized weights and activations, then convert and export it.

    The first 1,024 samples calibrate. Started by `accelerate launch`, all processes train together.

    Example: photomask chip train resnet20 --data fashion-mnist --epochs 5 --output out/resnet20
    """
    from photomask.chip import convert, export, load_recipe, load_target
    from photomask.chip.training import TensorData, is_first_process, save_weights
    from photomask.chip.training import train as train_model
    from photomask.cli.execution import golden_codes
    from photomask.cli.sources import first_of
    from photomask.documents import write_file
    from photomask.zoo import load_model
    from photomask.zoo.augmentation import augment as augment_images

    asked, hardware = load_recipe(recipe), load_target(target)
    given = dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    network, (images, classes) = load_model(model), _training_data(data, labels)
    schedule = _schedule(settings, given, labelled=classes is not None)
    prepared = _prepared(network, asked, images, schedule, batch_norms)
    report = train_model(
        prepared,
        TensorData(_in_order(prepared, images), classes, augment_images if augment else None),
        schedule,
        checkpoint=checkpoint,
        resume=resume,
        compiled=compiled,
        device=device,
        progress=show_progress if is_first_process() else None,
    )
    if not is_first_process():
        return
    program = convert(prepared, hardware)
    golden = golden_codes(program, first_of(images, samples))
    export(program, output_folder, golden, samples=samples)
    if weights is not None:
        save_weights(prepared, weights)
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    messages().print(f"written to {output_folder}")


def _prepared(
    network: "nn.Module",
    recipe: "RecipeObject",
    images: "Samples",
    schedule: "TrainingSettings",
    batch_norms: bool,
) -> "PreparedModel":
    """Prepares and calibrates a model; with its batch norms kept, where that was asked for."""
    from photomask.chip import calibrate, prepare
    from photomask.chip.training import keep_batch_norms
    from photomask.cli.sources import first_of

    example = first_of(images, 1)
    prepared = prepare(network, recipe, example)
    calibrate(prepared, first_of(images, schedule.calibration_samples))
    if batch_norms:
        keep_batch_norms(prepared, network, example)
    return prepared


def _in_order(prepared: "PreparedModel", samples: "Samples") -> "list[Tensor]":
    """Returns the samples of each input, in the order of the model's inputs."""
    from photomask.chip.calibration import input_forms
    from photomask.chip.data import read_batch

    forms = input_forms(prepared.graph, prepared.device)
    return read_batch(forms, samples, what="training data").inputs


def _schedule(
    path: Path | None, given: dict[str, int | float | None], *, labelled: bool
) -> "TrainingSettings":
    """Reads the schedule; what is given on the command line comes first."""
    from pydantic import ValidationError

    from photomask.chip.training import TrainingSettings
    from photomask.documents import describe_validation, read_text
    from photomask.errors import UsageError

    asked = {name: value for name, value in given.items() if value is not None}
    start = {"epochs": 10} | ({} if labelled else {"distillation": 1.0})
    if path is not None:
        start = TrainingSettings.parse(read_text(path), str(path)).model_dump()
    try:
        return TrainingSettings.model_validate(start | asked)
    except ValidationError as error:
        raise UsageError(f"impossible schedule: {describe_validation(error)}") from error


def _training_data(source: str, labels: Path | None) -> "tuple[Samples, Tensor | None]":
    """Loads samples and, where there are any, their classes."""
    from photomask.cli.sources import load_test_data
    from photomask.documents import is_file
    from photomask.zoo import calibration_set, count_of, load_labels, training_set
    from photomask.zoo.fashion_mnist import TRAINING_IMAGES

    if source in ("fashion-mnist", "fashion_mnist"):
        images, classes = calibration_set()
    elif is_file(Path(source) / TRAINING_IMAGES):
        images, classes = training_set(source)
    else:
        images, classes = load_test_data(source, None, None)
    if labels is not None:
        classes = load_labels(labels, count_of(images))
    return images, classes

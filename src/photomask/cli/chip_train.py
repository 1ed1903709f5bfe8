"""`photomask chip train`: weights and scales learn to be integers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photomask.cli import checks
from photomask.cli.console import messages, progress
from photomask.cli.names import completer
from photomask.cli.options import (
    DATA_HELP,
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

if TYPE_CHECKING:
    from torch import Tensor, nn

    from photomask.chip import PreparedModel
    from photomask.chip import Recipe as RecipeObject
    from photomask.chip import Target as TargetObject
    from photomask.chip.training import TrainingSettings
    from photomask.report import Progress
    from photomask.zoo import Samples

TrainingData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help=f"{DATA_HELP} Or the folder of Fashion-MNIST's idx files, 60,000 images.",
        callback=checks.data,
        autocompletion=completer("data", files=True),
    ),
]
TrainingLabels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="Y.npy",
        help="The right classes, integers. Default: those that the data holds; without any, the "
        "float model teaches.",
        callback=checks.present_file,
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE.json",
        help="The whole schedule; the options below come first.",
        callback=checks.present_file,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="N", min=1, help="Passes over the data. Default: 10, of `pretrain` 40."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", min=1, help="Samples of a step.")
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        metavar="RATE",
        help="Of weights and biases.",
        callback=checks.positive("--learning-rate"),
    ),
]
BatchNorms = Annotated[
    bool, typer.Option("--batch-norms", help="Normalise by the batch until the last epochs.")
]
Augment = Annotated[
    bool, typer.Option("--augment", help="Crops, flips and erasing, as for Fashion-MNIST.")
]
Compiled = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="DIR",
        help="Keep the training here after every epoch.",
        callback=checks.output_place,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")]
SaveWeights = Annotated[
    Path | None,
    typer.Option(
        "--save-weights",
        metavar="DIR",
        help="Write the trained weights too.",
        callback=checks.output_place,
    ),
]


def train(
    model: Model,
    data: TrainingData,
    output_folder: ExportFolder,
    labels: TrainingLabels = None,
    recipe: Recipe = "w4a4-lsq",
    target: Target = "asic",
    golden_samples: GoldenSamples = 1,
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
    save_weights: SaveWeights = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Train a model with quantized weights and activations, then convert and export it.

    The first 1,024 samples calibrate. Started by `accelerate launch`, all processes train together.

    Example: photomask chip train resnet20 --data fashion-mnist --epochs 5 --output out/resnet20
    """
    if resume and checkpoint is None:
        raise UsageError("--resume goes on from a checkpoint; name its folder by --checkpoint")
    from photomask.chip import load_recipe, load_target
    from photomask.chip.training import TensorData, is_first_process
    from photomask.chip.training import save_weights as write_weights
    from photomask.chip.training import train as train_model
    from photomask.cli.sources import device_of, first_of
    from photomask.documents import write_file
    from photomask.report import without_progress
    from photomask.zoo import load_model
    from photomask.zoo.augmentation import augment as vary

    place = device_of(device) if device is not None else None
    asked, hardware = load_recipe(recipe), load_target(target)
    given = dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    shown = progress() if is_first_process() else without_progress
    network, (images, classes) = load_model(model), training_data(data, labels)
    schedule = schedule_of(settings, given, labelled=classes is not None)
    prepared = ready_to_train(network, asked, images, schedule, hardware, batch_norms, shown)
    report = train_model(
        prepared,
        TensorData(in_order_of_inputs(prepared, images), classes, vary if augment else None),
        schedule,
        checkpoint=checkpoint,
        resume=resume,
        compiled=compiled,
        device=place,
        progress=shown,
    )
    if not is_first_process():
        return
    export_trained(prepared, hardware, first_of(images, golden_samples), output_folder)
    if save_weights is not None:
        write_weights(prepared, save_weights)
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    messages().print(f"written to {output_folder}")


def export_trained(
    prepared: "PreparedModel", hardware: "TargetObject", golden: "Samples", folder: Path
) -> None:
    """Converts the trained model and exports it, with a golden vector for each sample."""
    from photomask.chip import convert, export
    from photomask.cli.execution import golden_codes

    program = convert(prepared, hardware)
    export(program, folder, golden_codes(program, golden))


def ready_to_train(
    network: "nn.Module",
    recipe: "RecipeObject",
    images: "Samples",
    schedule: "TrainingSettings",
    hardware: "TargetObject",
    batch_norms: bool,
    shown: "Progress",
) -> "PreparedModel":
    """Prepares and calibrates a model; with its batch norms kept, where that was asked for."""
    from photomask.chip import calibrate, prepare
    from photomask.chip.training import keep_batch_norms
    from photomask.cli.sources import first_of

    example = first_of(images, 1)
    prepared = prepare(network, recipe, example, target=hardware)
    calibrate(prepared, first_of(images, schedule.calibration_samples), progress=shown)
    if batch_norms:
        keep_batch_norms(prepared, network, example)
    return prepared


def in_order_of_inputs(prepared: "PreparedModel", samples: "Samples") -> "list[Tensor]":
    """Returns the samples of each input, in the order of the model's inputs."""
    from photomask.chip.calibration import input_forms
    from photomask.chip.data import read_batch

    forms = input_forms(prepared.graph, prepared.device)
    return read_batch(forms, samples, what="training data").inputs


def schedule_of(
    path: Path | None, given: dict[str, int | float | None], *, labelled: bool
) -> "TrainingSettings":
    """Reads the schedule; what is given on the command line comes first."""
    from pydantic import ValidationError

    from photomask.chip.training import TrainingSettings
    from photomask.documents import describe_validation, read_text

    asked = {name: value for name, value in given.items() if value is not None}
    start = {"epochs": 10} | ({} if labelled else {"distillation": 1.0})
    if path is not None:
        start = TrainingSettings.parse(read_text(path), str(path)).model_dump()
    try:
        return TrainingSettings.model_validate(start | asked)
    except ValidationError as error:
        raise UsageError(f"impossible schedule: {describe_validation(error)}") from error


def training_data(source: str, labels: Path | None) -> "tuple[Samples, Tensor | None]":
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

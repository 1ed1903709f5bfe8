"""`photomask chip pretrain`: an encoder learns from samples without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photomask.cli import checks
from photomask.cli.chip_train import (
    BatchSize,
    Checkpoint,
    Compiled,
    Epochs,
    LearningRate,
    Resume,
    Settings,
    TrainingData,
)
from photomask.cli.console import messages, progress
from photomask.cli.names import completer
from photomask.cli.options import Device, Json, Model, Seed
from photomask.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from photomask.chip.pretraining import Encoder, Method
    from photomask.chip.training import Schedule

MethodName = Literal["barlow-twins", "vicreg", "xd"]
MethodOption = Annotated[
    MethodName,
    typer.Option("--method", help="What the two views of a sample are compared by."),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="MODEL",
        help="Method xd: the larger network that learns beside the small one.",
        callback=checks.optional_model,
        autocompletion=completer("models", files=True),
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="FILE.safetensors",
        help="Where the weights go, with a new last layer.",
        callback=checks.safetensors_file,
    ),
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="NAME",
        help="The last linear layer, which is left out. Default: found by capturing the model.",
    ),
]
NoFlip = Annotated[
    bool,
    typer.Option("--no-flip", help="Do not mirror images, for data where sides differ."),
]


def pretrain(
    model: Model,
    data: TrainingData,
    output_file: Output,
    method: MethodOption = "barlow-twins",
    host: Host = None,
    settings: Settings = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    head: Head = None,
    no_flip: NoFlip = False,
    compiled: Compiled = False,
    checkpoint: Checkpoint = None,
    resume: Resume = False,
    device: Device = None,
    json: Json = None,
) -> None:
    """Train a network on images without their labels, and write its weights.

    A network of the zoo begins with random weights. Other commands take the result as
    MODEL@FILE.safetensors. Started by `accelerate launch`, all processes train together.

    Example: photomask chip pretrain resnet20 --data out/idx --output out/resnet20.safetensors
    """
    if resume and checkpoint is None:
        raise UsageError("--resume goes on from a checkpoint; name its folder by --checkpoint")
    if method == "xd" and host is None:
        raise UsageError("--method xd needs --host MODEL, the network that teaches")
    if method != "xd" and host is not None:
        raise UsageError(f"--host belongs to --method xd, found --method {method}")
    from photomask.chip.pretraining import RandomViews
    from photomask.chip.pretraining import pretrain as pretrain_encoder
    from photomask.chip.training import is_first_process
    from photomask.cli.sources import device_of
    from photomask.documents import write_file
    from photomask.report import without_progress

    given = dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    schedule = _schedule(settings, given)
    images = _images(data)
    encoder = _encoder(model, head, images, schedule.seed)
    teacher = None if host is None else _encoder(host, None, images, schedule.seed + 1)
    report = pretrain_encoder(
        encoder,
        images,
        schedule,
        _method(method, teacher),
        augment=RandomViews(flip=not no_flip),
        checkpoint=checkpoint,
        resume=resume,
        compiled=compiled,
        device=None if device is None else device_of(device),
        progress=progress() if is_first_process() else without_progress,
    )
    if not is_first_process():
        return
    _write_weights(encoder.classifier(seed=schedule.seed), output_file)
    if json is not None:
        write_file(json, report.render().encode())
    typer.echo(str(report))
    messages().print(f"written to {output_file}")


def _write_weights(model: "nn.Module", path: Path) -> None:
    """Writes the state dict of a model as a file."""
    import safetensors.torch

    from photomask.documents import write_file

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_file(path, safetensors.torch.save(state))


def _method(name: MethodName, host: "Encoder | None") -> "Method":
    """Returns a method of pre-training by its name."""
    from photomask.chip.pretraining import BarlowTwins, CrossDistillation, VICReg

    if host is not None:
        return CrossDistillation(host)
    return VICReg() if name == "vicreg" else BarlowTwins()


def _encoder(source: str, head: str | None, images: "Tensor", seed: int) -> "Encoder":
    """Returns a network without its last layer, with random weights if it is the zoo's."""
    from photomask.chip.pretraining import without_head
    from photomask.zoo import load_model

    network = load_model(source, untrained_seed=seed)
    if head is not None:
        return without_head(network, head=head)
    return without_head(network, example=images[:1])


def _images(source: str) -> "Tensor":
    """Loads the images that are trained on; labels are not read."""
    from photomask.cli.sources import load_inputs
    from photomask.documents import is_file
    from photomask.errors import DataError
    from photomask.zoo import training_set
    from photomask.zoo.fashion_mnist import TRAINING_IMAGES

    if is_file(Path(source) / TRAINING_IMAGES):
        return training_set(source)[0]
    images = load_inputs(source, None)
    if isinstance(images, dict) or images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            f"{source} holds no images, floats [samples, channels, height, width], of which views "
            "can be made; pre-train on other data in Python, with an augmentation of your own"
        )
    return images


def _schedule(path: Path | None, given: dict[str, int | float | None]) -> "Schedule":
    """Reads the schedule; what is given on the command line comes first."""
    from pydantic import ValidationError

    from photomask.chip.training import Schedule
    from photomask.documents import describe_validation, read_text

    asked = {name: value for name, value in given.items() if value is not None}
    start = {"epochs": 40, "batch_size": 512, "optimizer": "adamw", "learning_rate": 0.002}
    if path is not None:
        start = Schedule.parse(read_text(path), str(path)).model_dump()
    try:
        return Schedule.model_validate(start | asked)
    except ValidationError as error:
        raise UsageError(f"impossible schedule: {describe_validation(error)}") from error

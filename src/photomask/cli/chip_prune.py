"""`photomask chip prune`: a network loses weights or channels, then becomes integers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photomask.cli.chip_train import (
    Augment,
    BatchNorms,
    BatchSize,
    Compiled,
    Epochs,
    LearningRate,
    Settings,
    TrainingData,
    TrainingLabels,
    export_trained,
    in_order_of_inputs,
    schedule_of,
    training_data,
)
from photomask.cli.console import messages, progress
from photomask.cli.options import (
    Device,
    ExportFolder,
    GoldenSamples,
    Json,
    Model,
    Recipe,
    Seed,
    Target,
)
from photomask.cli.patterns import check_pattern, check_share, read_pattern

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from photomask.chip import PreparedModel
    from photomask.chip.pruning import Pruner
    from photomask.chip.training import TrainingSettings
    from photomask.zoo import Samples

MethodName = Literal["magnitude", "wanda", "snip", "granet", "rigl", "sr-ste"]
MethodOption = Annotated[
    MethodName,
    typer.Option(
        "--method",
        help="What decides which weights stay. granet, rigl and sr-ste prune while they train.",
    ),
]
Sparsity = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        metavar="SHARE",
        help="The share of the weights that become zero. Default: 0.5; N:M decides it alone.",
        callback=check_share("--sparsity"),
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="N:M|OxI",
        help="N of M inputs stay, such as 2:4; or blocks of outputs × inputs go, such as 8x8.",
        callback=check_pattern,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="PATTERN",
        help="Prune only these layers: names or patterns as in recipes; repeat it. Default: all "
        "that can be pruned.",
    ),
]
Channels = Annotated[
    float | None,
    typer.Option(
        "--channels",
        metavar="SHARE",
        help="First remove this share of the channels of every layer. Alone, nothing else is "
        "pruned.",
        callback=check_share("--channels"),
    ),
]


def prune(
    model: Model,
    data: TrainingData,
    output_folder: ExportFolder,
    labels: TrainingLabels = None,
    method: MethodOption = "magnitude",
    sparsity: Sparsity = None,
    pattern: Pattern = None,
    layer: Layers = None,
    channels: Channels = None,
    recipe: Recipe = "w8a8",
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
    device: Device = None,
    json: Json = None,
) -> None:
    """Prune a model, train it if epochs are given, then convert and export it.

    Without --epochs and --settings, magnitude, wanda and snip prune at once, by the first 1,024
    samples.

    Example: photomask chip prune resnet20 --data fashion-mnist --pattern 2:4 --output out/sparse
    """
    from photomask.chip import load_recipe, load_target, plan_channels, prepare, remove_channels
    from photomask.chip.pruning import report_of
    from photomask.cli.sources import device_of, first_of
    from photomask.documents import write_file
    from photomask.zoo import load_model

    place = device_of(device) if device is not None else None
    asked, hardware = load_recipe(recipe), load_target(target)
    only_channels = channels is not None and not (sparsity or pattern or layer)
    pruner = None if only_channels else _pruner(method, sparsity, pattern, layer)
    given = dict(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    network, (images, classes) = load_model(model), training_data(data, labels)
    schedule = schedule_of(settings, given, labelled=classes is not None)
    samples, teacher = _Samples(images, classes, schedule), network
    if channels is not None:
        plan = plan_channels(network, first_of(images, 1), channels)
        network = remove_channels(network, first_of(images, 1), plan)
        typer.echo(str(plan))
    prepared = prepare(network, asked, first_of(images, 1), target=hardware)
    learns = bool(epochs or settings or (pruner and pruner.only_trains))
    during = pruner if learns and pruner is not None and not pruner.needs_inputs else None
    samples.calibrate(prepared, None if during else pruner)
    if learns:
        norms = network if batch_norms else None
        samples.train(prepared, norms, teacher, during, augment, compiled, place)
    export_trained(prepared, hardware, first_of(images, golden_samples), output_folder)
    if pruner is not None:
        report = report_of(prepared, pruner)
        typer.echo(str(report))
        if json is not None:
            write_file(json, report.render().encode())
    messages().print(f"written to {output_folder}")


@dataclass(frozen=True)
class _Samples:
    """The data, and how a model learns from it."""

    images: "Samples"
    classes: "Tensor | None"
    schedule: "TrainingSettings"

    def calibrate(self, prepared: "PreparedModel", pruner: "Pruner | None") -> None:
        """Calibrates a model, which is pruned at once before where a pruner is given."""
        from photomask.chip import calibrate
        from photomask.chip.pruning import prune as prune_model
        from photomask.cli.sources import first_of

        count = self.schedule.calibration_samples
        first = first_of(self.images, count)
        if pruner is not None:
            inputs = in_order_of_inputs(prepared, first)
            data: Any = inputs
            if self.classes is not None and "gradients" in pruner.needs:
                data = (*inputs, self.classes[:count])
            prune_model(prepared, pruner, data, progress=progress())
        calibrate(prepared, first, progress=progress())

    def train(
        self,
        prepared: "PreparedModel",
        with_norms: "nn.Module | None",
        teacher: "nn.Module",
        pruner: "Pruner | None",
        augmented: bool,
        compiled: bool,
        device: "torch.device | None",
    ) -> None:
        """Trains a calibrated model, with the batch norms of a module where one is given."""
        from photomask.chip.training import TensorData, keep_batch_norms, train
        from photomask.cli.sources import first_of
        from photomask.zoo.augmentation import augment

        if with_norms is not None:
            keep_batch_norms(prepared, with_norms, first_of(self.images, 1))
        inputs = in_order_of_inputs(prepared, self.images)
        train(
            prepared,
            TensorData(inputs, self.classes, augment if augmented else None),
            self.schedule,
            teacher=teacher,
            pruner=pruner,
            compiled=compiled,
            device=device,
            progress=progress(),
        )


def _pruner(
    method: MethodName, sparsity: float | None, pattern: str | None, layers: list[str] | None
) -> "Pruner":
    """Returns the pruner that the options describe."""
    from photomask.chip import pruning

    kinds = {
        "magnitude": pruning.Magnitude,
        "wanda": pruning.Wanda,
        "snip": pruning.Snip,
        "granet": pruning.GraNet,
        "rigl": pruning.RigL,
        "sr-ste": pruning.SparseRefinement,
    }
    zeros = read_pattern(pattern)
    if sparsity is None and not isinstance(zeros, pruning.NofM):
        sparsity = 0.5
    settings: dict[str, Any] = {} if zeros is None else {"pattern": zeros}
    if layers:
        settings["layers"] = layers
    return kinds[method](sparsity, **settings)

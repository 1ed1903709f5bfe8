"""`photomask chip explore`: recipes, widths, prunings and hardware, and the front of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photomask.cli import checks
from photomask.cli.console import messages, progress
from photomask.cli.options import Data, Device, Labels, Model
from photomask.errors import UsageError

if TYPE_CHECKING:
    from photomask.chip.exploration import Exploration

OUTPUT = "exploration"
EXPLORATION_FILE = "exploration.json"
FRONT_FILE = "front.json"
POINTS = "points"
PICTURES = ("front.svg", "front.png")

ExplorationFolder = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="DIR",
        help="Where the front, its picture and the recipes of its points go.",
        callback=checks.output_folder(OUTPUT),
    ),
]
Trials = Annotated[
    int,
    typer.Option(
        "--trials",
        metavar="N",
        min=1,
        help="How many trials the study has in the end, over all processes and calls.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="STORAGE",
        help="A journal file, or the URL of a database. Other processes that name it work on the "
        "same study, and a later call continues it. Default: the memory of this process.",
        callback=checks.study_storage,
    ),
]
StudyName = Annotated[
    str, typer.Option("--study", metavar="NAME", help="The name of the study in its storage.")
]
Space = Annotated[
    Path | None,
    typer.Option(
        "--space",
        metavar="SPACE.json",
        help="What to combine. Default: four recipes, widths, sparsities and two accelerators.",
        callback=checks.present_file,
    ),
]
Objectives = Annotated[
    str,
    typer.Option(
        "--objectives",
        metavar="METRIC,…",
        help="What to improve: accuracy, weight_bytes, accumulator_bits, cycles, energy_pj.",
        callback=checks.objectives,
    ),
]
SamplerName = Annotated[
    Literal["tpe", "nsga2", "random"],
    typer.Option("--sampler", metavar="SAMPLER", help="Optuna's sampler: tpe, nsga2 or random."),
]
PrunerName = Annotated[
    Literal["none", "median", "hyperband"],
    typer.Option(
        "--stop-early",
        metavar="PRUNER",
        help="Optuna's pruner: none, median or hyperband. Needs accuracy as the only objective.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Of the sampler. Give each process another one. Default: a new one.",
    ),
]
CalibrationCount = Annotated[
    int,
    typer.Option(
        "--calibration-samples", metavar="N", min=1, help="How many samples to calibrate on."
    ),
]
HeldOutCount = Annotated[
    int,
    typer.Option(
        "--samples",
        metavar="N",
        min=1,
        help="How many samples to measure the accuracy on. They are held out: those after the "
        "calibration samples, or the test set.",
    ),
]


def explore(
    model: Model,
    data: Data,
    output_folder: ExplorationFolder,
    trials: Trials = 50,
    storage: Storage = None,
    study: StudyName = "exploration",
    space: Space = None,
    objectives: Objectives = "accuracy,weight_bytes,cycles",
    sampler: SamplerName = "tpe",
    stop_early: PrunerName = "none",
    seed: Seed = None,
    labels: Labels = None,
    calibration_samples: CalibrationCount = 256,
    samples: HeldOutCount = 1000,
    device: Device = None,
) -> None:
    """Search recipes, widths, sparsity and hardware for points that nothing else dominates.

    The folder holds the front as JSON and as a picture, all trials, and the recipe of each point.

    Example: photomask chip explore resnet20 --data fashion-mnist --trials 50 --output out
    """
    chosen = objectives.split(",")
    if stop_early != "none" and chosen != ["accuracy"]:
        raise UsageError(
            "--stop-early needs --objectives accuracy, because Optuna stops only trials of a study "
            "with one objective; keep the costs down by limits in the search space"
        )
    checks.exploration_packages()
    from photomask.chip.exploration import SearchSpace
    from photomask.chip.exploration import explore as explore_space
    from photomask.cli.sources import device_of, load_held_out
    from photomask.zoo import load_model

    combined = SearchSpace() if space is None else SearchSpace.load(space)
    calibration, held_out, classes = load_held_out(data, labels, calibration_samples, samples)
    found = explore_space(
        load_model(model),
        calibration,
        combined,
        test=(held_out, classes),
        trials=trials,
        storage=storage,
        study_name=study,
        objectives=chosen,  # pyright: ignore[reportArgumentType]
        sampler=_sampler(sampler, seed),
        pruner=_pruner(stop_early),
        device=device_of(device),
        progress=progress(),
    )
    if not found.measured:
        reasons = "; ".join(f"{count}×: {reason}" for reason, count in found.reasons().items())
        raise UsageError(f"no combination of the {len(found.trials)} trials is possible. {reasons}")
    _write(found, output_folder)
    typer.echo(str(found))
    messages().print(f"written to {output_folder}")


def _write(found: "Exploration", folder: Path) -> None:
    from photomask.chip.exploration import save_front_picture
    from photomask.documents import written_whole

    front = found.front()
    with written_whole(folder, OUTPUT) as staging:
        found.save(staging / EXPLORATION_FILE)
        (staging / FRONT_FILE).write_text(front.render(), encoding="utf-8")
        for point in front.points:
            place = staging / POINTS / str(point.number)
            place.mkdir(parents=True)
            point.write(place)
        if len(found.objectives) > 1:
            for name in PICTURES:
                save_front_picture(found, staging / name)


def _sampler(name: str, seed: int | None) -> Any:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    kinds = {"tpe": TPESampler, "nsga2": NSGAIISampler, "random": RandomSampler}
    return kinds[name](seed=seed)


def _pruner(name: str) -> Any:
    from optuna.pruners import HyperbandPruner, MedianPruner

    return {"none": None, "median": MedianPruner(), "hyperband": HyperbandPruner()}[name]

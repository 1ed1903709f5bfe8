"""What does an exploration find beyond the presets, and what does a trial cost?

    python benchmarks/exploration.py --device cuda --processes 4

ResNet-20 on Fashion-MNIST. All processes work on one study in one journal, without any training.
The first 5,000 test images choose the points. The accuracies in the table are those of the other
5,000, on which nothing was chosen.

Two things are checked before anything is written: the front contains or dominates every preset, and
the processes made one study, in which every preset and every number occurs once.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from ours import RedGateError
from photomask import zoo
from photomask.chip.exploration import (
    Evaluator,
    Exploration,
    ExploredPoint,
    Metric,
    SearchSpace,
    explore,
    save_front_picture,
)
from rows import OURS, Results, Subject, cores

WHAT = "exploration"
NETWORK = "resnet20"
OBJECTIVES: tuple[Metric, ...] = ("accuracy", "weight_bytes", "cycles")
CHOOSING = 5_000
"""The test images on which points are chosen; the others are for the table."""
SMALL = 16
"""The trials of the study with which two processes are tested."""
COMPLETE, PRUNED = 1, 2
"""The states of finished trials in a journal of Optuna."""


@dataclass(frozen=True)
class Work:
    """The work of one process."""

    journal: Path
    trials: int
    calibration: int
    images: int
    device: str
    threads: int


def main() -> None:
    """Explores, checks the study, and appends the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--calibration", type=int, default=256, help="images to calibrate on")
    parser.add_argument("--images", type=int, default=CHOOSING, help="images to choose on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--picture", type=Path, help="where to draw the front, a .svg file")
    arguments = parser.parse_args()
    threads = max(1, cores() // max(2, arguments.processes))
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            Path(folder) / "study.journal",
            arguments.trials,
            arguments.calibration,
            min(arguments.images, CHOOSING),
            arguments.device,
            threads,
        )
        small = replace(work, journal=Path(folder) / "two.journal", trials=SMALL, images=100)
        explored_by(small, 2)
        started = time.perf_counter()
        found = explored_by(work, arguments.processes)
        minutes = (time.perf_counter() - started) / 60
    demand_presets(found)
    print(found)
    torch.set_num_threads(threads)  # sums, and so the scales, may depend on it in the last bit
    write(found, minutes, work, arguments.processes)
    if arguments.picture is not None:
        save_front_picture(found, arguments.picture)


def explored_by(work: Work, processes: int) -> Exploration:
    """Returns what several processes found, if their trials are those of one study.

    Raises:
        RedGateError: they are not.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        texts = list(pool.map(explored, [work] * processes))
    explorations = [Exploration.parse(text, "a process") for text in texts]
    found = max(explorations, key=lambda each: len(each.trials))
    presets = [trial.preset for trial in found.trials if trial.preset]
    numbers = [trial.number for trial in found.trials]
    if sorted(presets) != sorted(map(str, SearchSpace().recipes)):
        raise RedGateError(f"the presets were tried {presets}")
    tried = sum(trial.outcome != "repeated" for trial in found.trials)
    if numbers != list(range(len(numbers))) or not 0 <= tried - work.trials < processes:
        raise RedGateError(f"{work.trials} trials were asked for, and {tried} were new")
    operations = map(json.loads, work.journal.read_text(encoding="utf-8").splitlines())
    ends = [each for each in operations if each.get("state") in (COMPLETE, PRUNED)]
    workers = {each["worker_id"] for each in ends}
    if len(ends) != len(numbers) or len(workers) != processes:
        raise RedGateError(f"{len(workers)} of {processes} processes ended {len(ends)} trials")
    return found


def explored(work: Work) -> str:
    """Explores in this process, and returns all trials of the study as a document."""
    torch.set_num_threads(work.threads)
    images, labels = zoo.test_set()
    return explore(
        zoo.load(NETWORK),
        zoo.calibration_set(work.calibration)[0],
        test=(images[: work.images], labels[: work.images]),
        trials=work.trials,
        storage=work.journal,
        objectives=OBJECTIVES,
        device=work.device,
    ).render()


def demand_presets(found: Exploration) -> None:
    """Checks that the front contains or dominates every preset.

    Raises:
        RedGateError: it does not.
    """
    front = [point.figures() for point in found.front().points]
    for preset in (trial for trial in found.trials if trial.preset):
        own = preset.figures()
        if not any(
            other.accuracy >= own.accuracy
            and other.weight_bytes <= own.weight_bytes
            and other.cycles <= own.cycles
            for other in front
        ):
            raise RedGateError(f"no point of the front is as good as {preset.preset}")


def write(found: Exploration, minutes: float, work: Work, processes: int) -> None:
    """Appends the rows: what the study cost, and each preset beside a point of the front."""
    results = Results(WHAT)
    device = torch.cuda.get_device_name() if work.device.startswith("cuda") else None
    note = (
        f"{work.images} images to choose on, {work.calibration} to calibrate, {processes} processes"
    )
    study = Subject(WHAT, f"{OURS} study", NETWORK, device=device)
    results.number(study, "time", minutes, "min", note=note)
    seconds = [trial.figures().seconds for trial in found.measured]
    results.samples(study, "time per trial", seconds, "s", note=note)
    for outcome, count in found.counts().items():
        results.number(study, outcome, count, "trials", note=note)
    results.number(study, "front", len(found.front().points), "points", note=note)
    images, labels = zoo.test_set()
    others = (images[CHOOSING:], labels[CHOOSING:])
    calibration = zoo.calibration_set(work.calibration)[0]
    evaluator = Evaluator(zoo.load(NETWORK), calibration, others, device=work.device)
    for preset in (trial for trial in found.trials if trial.preset):
        write_point(results, evaluator, f"{OURS} {preset.preset}", preset, device)
        better = smallest_as_accurate(found, preset)
        write_point(results, evaluator, f"{OURS} instead of {preset.preset}", better, device)


def smallest_as_accurate(found: Exploration, preset: ExploredPoint) -> ExploredPoint:
    """Returns the point of the front with the fewest bytes that is no worse than a preset.

    No worse means in every objective of the study.
    """
    own = preset.figures()
    return min(
        (
            point
            for point in found.front().points
            if point.figures().accuracy >= own.accuracy
            and point.figures().cycles <= own.cycles
            and point.figures().weight_bytes <= own.weight_bytes
        ),
        key=lambda point: point.figures().weight_bytes,
    )


def write_point(
    results: Results, evaluator: Evaluator, name: str, point: ExploredPoint, device: str | None
) -> None:
    """Appends the figures of a point, with its accuracy on images on which nothing was chosen.

    Raises:
        RedGateError: the point gives another program than in the study.
    """
    measured, chosen_by = evaluator.measure(point.point), point.figures()
    if measured.program_sha256 != chosen_by.program_sha256:
        raise RedGateError(f"trial {point.number} gives another program here than in the study")
    subject = Subject(WHAT, name, NETWORK, device=device)
    note = (
        f"{point.point.label}; trial {point.number}, {chosen_by.accuracy:.2f} % on the images to "
        "choose on"
    )
    results.number(subject, "top1", measured.accuracy, "%", note=note)
    results.number(subject, "weights", measured.weight_bytes, "bytes", note=note)
    results.number(subject, "accumulator", measured.accumulator_bits, "bits", note=note)
    results.number(subject, "cycles", measured.cycles, "cycles", note=note)
    results.number(subject, "energy", measured.energy_pj / 1e6, "µJ", note=note)


if __name__ == "__main__":
    main()

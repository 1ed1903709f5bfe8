"""What accuracy does each way of quantizing keep, and what does it cost, beside its peers?

    python scripts/make_fashion_mnist.py --idx out/idx
    python benchmarks/quantizers.py --data out/idx --device cuda --jobs 4

A peer that is not installed, and a width that it does not have, is a row that says so. Sony's MCT
needs an environment of its own: `--peers "Sony MCT"` adds its rows from there.

Fashion-MNIST, all 10,000 test images, the networks of the zoo. Everyone starts from the same float
network and calibrates on the same 512 images; who trains does it for as many epochs, on the same
augmented images, against the same mixture of labels and the float network's outputs; the vision
transformer, which no peer quantizes, learns from ResNet-20 in its place. Reconstruction learns from
the 512 images and augmented copies of them, the vision transformer's from more images. Ours are the
accuracies of integer programs. What learns is repeated with other seeds; the mean is written.

What the program decides is compared with the fake-quantized model in float64, whose scales are the
target's (`align_to_target`); of some images every integer is, and those that differ are counted.
"""

import argparse
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from few_bit_peers import FLOWS, Trainer, quantized_by
from few_bit_tasks import (
    CALIBRATED,
    COPIES,
    NETWORKS,
    PEER_NETWORKS,
    RECONSTRUCTED,
    SHARE_OF_TEACHER,
    SMOOTHING,
    STRENGTH,
    TEACHERS,
    TEMPERATURE,
    TRAINED,
    TRANSFORMER_IMAGES,
    WIDTHS,
    Options,
    Task,
    recipe_for,
    reconstruction_for,
    settings_for,
    training_images,
)
from ours import as_network, float_network
from photomask import zoo
from photomask.chip import (
    PreparedModel,
    align_to_target,
    calibrate,
    compare_with_prepared,
    convert,
    load_target,
    prepare,
)
from photomask.chip.equalization import smooth
from photomask.chip.reconstruction import reconstruct
from photomask.chip.training import TensorData, keep_batch_norms, train
from photomask.chip.training.losses import cross_entropy, mixed_loss
from photomask.zoo.augmentation import augment
from rows import Results, Subject

WHAT = "quantizers"
TARGET = load_target("asic")
BATCH = 500
"""Test images at a time."""
COMPARED = 100
"""Test images of which every integer is compared."""


@dataclass(frozen=True)
class Outcome:
    """What came of a task: seconds and percentages, one of each for each seed."""

    task: Task
    seconds: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    problem: str = ""


def ours(
    task: Task, model: nn.Module, calibration: Tensor, options: Options, seed: int
) -> PreparedModel:
    """Returns a model of ours, calibrated, reconstructed or trained."""
    prepared = prepare(model, recipe_for(task).build(), calibration[:1])
    if task.is_smoothed:
        smooth(prepared, calibration, strength=STRENGTH, shift=True)
    calibrate(prepared, calibration)
    if task.flow == RECONSTRUCTED:
        if task.is_transformer:
            samples = zoo.training_set(options.data)[0][:TRANSFORMER_IMAGES]
        else:
            samples = with_copies(calibration, seed)
        settings = reconstruction_for(task, options, seed)
        reconstruct(prepared, samples, settings=settings, device=options.device)
    elif task.flow == TRAINED:
        if not task.is_transformer:
            keep_batch_norms(prepared, model, calibration[:1])
        data = TensorData(*zoo.training_set(options.data), augment)
        settings = settings_for(task, options, seed)
        name = TEACHERS.get(task.network)
        teacher = zoo.load(name) if name else None
        train(prepared, data, settings, teacher=teacher, device=options.device, compiled=True)
    align_to_target(prepared.double(), TARGET)
    return prepared


def with_copies(images: Tensor, seed: int) -> Tensor:
    """Returns images and augmented copies of them, in which nothing is erased."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copies = [augment(images, erasing_probability=0.0) for _ in range(COPIES)]
    return torch.cat([images, *copies])


def train_peer(task: Task, model: nn.Module, options: Options, seed: int) -> Trainer:
    """Returns what trains a peer's module: the same data, loss, optimizer and steps as ours."""
    settings, device = settings_for(task, options, seed), options.device
    images, labels = (tensor.to(device) for tensor in training_images(options))
    teacher = model.to(device).eval()
    loss = mixed_loss(cross_entropy(SMOOTHING), SHARE_OF_TEACHER, TEMPERATURE)

    def run(network: nn.Module) -> None:
        torch.manual_seed(seed)
        network.to(device)
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=True,
            weight_decay=settings.weight_decay,
        )
        steps = len(images) // settings.batch_size
        for step in range(settings.epochs * steps):
            if step % steps == 0:
                order = torch.randperm(len(images), device=device)
            part = order[step % steps * settings.batch_size :][: settings.batch_size]
            x = augment(images[part])
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * settings.learning_rate_factor(step, steps)
            found = network(x)
            scores = found if isinstance(found, Tensor) else found.value
            with torch.no_grad():
                taught = teacher(x)
            value = loss((scores,), labels[part], (taught,))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return run


def measure(task: Task, options: Options) -> Outcome:
    """Does one task in a process of its own: what is compiled serves all its seeds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    outcome = Outcome(task)
    for seed in range(task.seeds):
        try:
            seconds, figures = measure_once(task, options, seed)
        except Exception as error:  # noqa: BLE001 - one way that fails must not end the others
            return Outcome(task, problem=f"{type(error).__name__}: {error}")
        print(f"{task}, seed {seed}: {figures}, {seconds:.0f} s", flush=True)
        outcome.seconds.append(seconds)
        for metric, value in figures.items():
            outcome.figures.setdefault(metric, []).append(value)
    return outcome


def measure_once(task: Task, options: Options, seed: int) -> tuple[float, dict[str, float]]:
    """Returns how long one way of quantizing took, and its percentages."""
    model, device = zoo.load(task.network), options.device
    calibration, (images, labels) = zoo.calibration_set(options.images)[0], zoo.test_set()
    images, labels = images[: options.test_images], labels[: options.test_images]
    start = time.perf_counter()
    if task.flow == "float":
        return 0.0, {"top1": _top1(_scores(float_network(model), images), labels)}
    if task.peer is None:
        prepared = ours(task, model, calibration, options, seed)
        seconds = time.perf_counter() - start
        return seconds, _figures_of(prepared, images, labels, device)
    trainer = train_peer(task, model, options, seed) if task.flow == TRAINED else None
    device = device if trainer else "cpu"
    widths = WIDTHS[task.width]
    run = quantized_by(task.peer, model.to(device), calibration.to(device), *widths, trainer)
    seconds = time.perf_counter() - start
    return seconds, {"top1": _top1(_scores(run, images.to(device)).cpu(), labels)}


def _figures_of(
    prepared: PreparedModel, images: Tensor, labels: Tensor, device: str
) -> dict[str, float]:
    """Returns the accuracy of the program, and how it differs from the fake-quantized model."""
    program = convert(prepared, TARGET)
    report = compare_with_prepared(prepared, program, images[:COMPARED], device=device)
    if report.differing:
        print(report, flush=True)
    integer, prepared = as_network(program, device), prepared.to(device).eval()

    def fake(x: Tensor) -> Tensor:
        with torch.no_grad():
            return prepared(x.to(device).double())[0].cpu()

    found, expected = _scores(integer, images), _scores(fake, images)
    alike = (found.argmax(1) == expected.argmax(1)).double().mean()
    return {
        "top1": _top1(found, labels),
        "fake_top1": _top1(expected, labels),
        "same_prediction": 100 * float(alike),
        "differing": report.differing,
    }


def _scores(run, images: Tensor) -> Tensor:
    return torch.cat([run(part) for part in images.split(BATCH)])


def _top1(scores: Tensor, labels: Tensor) -> float:
    return 100 * float((scores.argmax(1) == labels).double().mean())


def tasks_of(arguments: argparse.Namespace) -> list[Task]:
    """Returns what is asked for, the longest first."""
    found = []
    for network, width, flow in product(arguments.networks, arguments.widths, arguments.flows):
        seeds = 1 if flow == CALIBRATED else arguments.seeds
        found.append(Task(network, width, flow, seeds=seeds))
        if flow != RECONSTRUCTED and network in PEER_NETWORKS:
            found += [Task(network, width, flow, peer) for peer in arguments.peers]
    order = {TRAINED: 0, RECONSTRUCTED: 1, CALIBRATED: 2}
    found.sort(key=lambda task: order[task.flow])
    return [*found, *(Task(network, "W32A32", "float") for network in arguments.networks)]


def write(results: Results, outcome: Outcome, options: Options) -> None:
    """Appends the rows of one way of quantizing; several seeds become their mean."""
    task = outcome.task
    package = FLOWS[task.peer][1] if task.peer else "photomask"
    if task.flow == "float":
        subject = Subject(WHAT, "float", task.network, package="torch")
    else:
        device = torch.cuda.get_device_name() if options.on_gpu else None
        subject = Subject(WHAT, task.implementation, task.network, package, device)
    if outcome.problem:
        results.skipped(subject, outcome.problem)
        return
    note = f"{options.test_images} images"
    if task.flow == TRAINED:
        epochs = options.epochs or task.epochs
        note += f", {epochs} epoch{'s' * (epochs > 1)}"
    if task.flow == RECONSTRUCTED:
        steps = reconstruction_for(task, options, 0)
        note += f", {steps.iterations} steps a block, each of {steps.batch_size} of "
        if task.is_transformer:
            note += f"{TRANSFORMER_IMAGES} images"
        else:
            note += f"{options.images} images and {COPIES} copies of each"
    for metric, values in outcome.figures.items():
        each = ", ".join(f"{value:.2f}" for value in values)
        seeds = f"; mean of seeds: {each}" if len(values) > 1 else ""
        unit = "integers" if metric == "differing" else "%"
        results.number(subject, metric, statistics.fmean(values), unit, note=note + seeds)
    if task.flow != "float":
        where = f"{options.device}, shared by several such runs"
        results.number(
            subject, "time", statistics.median(outcome.seconds), "s", note=f"{note}, {where}"
        )


def main() -> None:
    """Spreads the tasks over processes and writes rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="out/idx", help="folder of the idx .gz files")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--widths", nargs="*", default=tuple(WIDTHS), choices=tuple(WIDTHS))
    flows = (CALIBRATED, RECONSTRUCTED, TRAINED)
    parser.add_argument("--flows", nargs="*", default=flows, choices=flows)
    parser.add_argument("--peers", nargs="*", default=tuple(FLOWS), choices=tuple(FLOWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of every training, not as each width needs")
    parser.add_argument("--iterations", type=int, default=4000, help="steps of a block")
    parser.add_argument("--images", type=int, default=512, help="for calibration")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    arguments = parser.parse_args()
    options = Options(
        arguments.data,
        arguments.device,
        arguments.epochs,
        arguments.iterations,
        arguments.images,
        arguments.test_images,
    )
    results = Results(WHAT)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(measure, task, options) for task in tasks_of(arguments)]
        for future in as_completed(futures):
            write(results, future.result(), options)


if __name__ == "__main__":
    main()

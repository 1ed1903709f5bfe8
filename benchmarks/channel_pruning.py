"""What accuracy does half a network keep, if its channels are removed and it is quantized?

    python scripts/make_fashion_mnist.py --idx out/idx
    python benchmarks/channel_pruning.py --data out/idx --device cuda --jobs 3

MobileNetV1 of the zoo on Fashion-MNIST, all 10,000 test images. Half of the output channels of each
layer leave the trained float network, by the Euclidean norm of their weights. Then the batch norms
are measured again, and the smaller network is trained with weights and activations of 8 bits,
against the labels and the outputs of the whole float network. The accuracy is that of the integer
program. Torch-Pruning removes the same share, and what follows is the same; without it, its row
says so (`pip install torch-pruning==1.6.1`).
"""

import argparse
import copy
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from few_bit_tasks import TRAINED, Options, Task, recipe_for, settings_for
from ours import as_network, float_network
from photomask import zoo
from photomask.chip import (
    IntegerProgram,
    align_to_target,
    calibrate,
    convert,
    load_target,
    prepare,
    remove_channels,
)
from photomask.chip.training import TensorData, keep_batch_norms, train
from photomask.zoo.augmentation import augment
from rows import Results, Subject

WHAT = "channel_pruning"
NETWORK, SHARE = "mobilenet_v1", 0.5
TASK = Task(NETWORK, "W8A8", TRAINED)
TARGET = load_target("asic")
LEARNING_RATE, QUANTIZER_LEARNING_RATE = 0.05, 0.001
"""Half of a network has more to learn than a whole one that is only quantized."""
BATCH = 500
"""Images at a time."""
MEASURED_IMAGES = 10_000
"""Training images on which the batch norms are measured after channels were removed."""


def photomask(model: nn.Module, images: Tensor) -> nn.Module:
    """Removes channels with Photomask."""
    return remove_channels(model, images[:2], SHARE)


def torch_pruning(model: nn.Module, images: Tensor) -> nn.Module:
    """Removes channels with Torch-Pruning, by the same importance."""
    import torch_pruning as peer

    model = copy.deepcopy(model)
    pruner = peer.pruner.BasePruner(
        model,
        images[:1],
        importance=peer.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=[model.classifier],
    )
    pruner.step()
    return model


CONTENDERS = {"photomask": photomask, "Torch-Pruning": torch_pruning}
PACKAGES = {"photomask": "photomask", "Torch-Pruning": "torch-pruning"}


def measure_norms(model: nn.Module, images: Tensor) -> None:
    """Measures the batch norms of a model again, in place, as an average over images."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    with torch.no_grad():
        for part in images.split(BATCH):
            model(part)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def trained(smaller: nn.Module, model: nn.Module, options: Options, seed: int) -> IntegerProgram:
    """Returns the program of a smaller network after training it with its quantizers."""
    calibration = zoo.calibration_set(options.images)[0]
    prepared = prepare(smaller, recipe_for(TASK).build(), calibration[:1])
    calibrate(prepared, calibration)
    keep_batch_norms(prepared, smaller, calibration[:1])
    settings = settings_for(TASK, options, seed).model_copy(
        update={
            "learning_rate": LEARNING_RATE,
            "quantizer_learning_rate": QUANTIZER_LEARNING_RATE,
        }
    )
    data = TensorData(*zoo.training_set(options.data), augment)
    compiled = options.on_gpu
    train(prepared, data, settings, teacher=model, device=options.device, compiled=compiled)
    align_to_target(prepared.double(), TARGET)
    return convert(prepared, TARGET)


def top1(run, options: Options) -> float:
    """Returns the accuracy on the test images, in percent."""
    images, labels = zoo.test_set()
    images, labels = images[: options.test_images], labels[: options.test_images]
    found = torch.cat([run(part) for part in images.split(BATCH)])
    return 100 * float((found.argmax(1) == labels).double().mean())


@dataclass
class Outcome:
    """What came of one seed."""

    top1: float = 0.0
    parameters: int = 0
    seconds: float = 0.0
    problem: str = ""


def measure(name: str, options: Options, seed: int) -> Outcome:
    """Removes channels in one way and trains with one seed, in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = zoo.load(NETWORK)
    training = zoo.training_set(options.data)[0]
    try:
        smaller = CONTENDERS[name](model, training)
    except ImportError as error:
        return Outcome(problem=f"not installed: {error}")
    measure_norms(smaller, training[:MEASURED_IMAGES])
    start = time.perf_counter()
    program = trained(smaller, model, options, seed)
    seconds = time.perf_counter() - start
    found = Outcome(top1(as_network(program, options.device), options), count(smaller), seconds)
    print(f"{name}, seed {seed}: {found.top1:.2f} %, {seconds:.0f} s", flush=True)
    return found


def write(name: str, results: Results, options: Options, outcomes: list[Outcome]) -> None:
    """Appends the rows of one way of removing channels."""
    device = torch.cuda.get_device_name() if options.on_gpu else None
    subject = Subject(WHAT, f"{name}, 50 % of the channels, W8A8", NETWORK, PACKAGES[name], device)
    for outcome in outcomes:
        if outcome.problem:
            results.skipped(subject, outcome.problem)
            return
    each = ", ".join(f"{outcome.top1:.2f}" for outcome in outcomes)
    epochs = f"{options.epochs} epoch{'s' * ((options.epochs or 0) > 1)}"
    note = f"{options.test_images} images, {epochs}; mean of seeds: {each}"
    accuracy = statistics.fmean(outcome.top1 for outcome in outcomes)
    results.number(subject, "top1", accuracy, "%", note=note)
    results.number(subject, "parameters", outcomes[0].parameters, "", note=note)
    seconds = statistics.median(outcome.seconds for outcome in outcomes)
    results.number(subject, "time", seconds, "s", note=f"{note}; shared by several such runs")


def count(model: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Measures the float network, then each way of removing channels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="out/idx", help="folder of the idx .gz files")
    parser.add_argument(
        "--contenders", nargs="*", default=tuple(CONTENDERS), choices=tuple(CONTENDERS)
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=512, help="for calibration")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    options = Options(
        arguments.data,
        arguments.device,
        arguments.epochs,
        0,
        arguments.images,
        arguments.test_images,
    )
    results = Results(WHAT)
    model = zoo.load(NETWORK)
    subject = Subject(WHAT, "float", NETWORK, package="torch")
    note = f"{options.test_images} images"
    results.number(subject, "top1", top1(float_network(model), options), "%", note=note)
    results.number(subject, "parameters", count(model), "", note=note)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: [pool.submit(measure, name, options, seed) for seed in range(arguments.seeds)]
            for name in arguments.contenders
        }
        for name, futures in waiting.items():
            write(name, results, options, [future.result() for future in futures])


if __name__ == "__main__":
    main()

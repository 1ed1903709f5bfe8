"""What accuracy is left once weights are pruned and the rest are integers?

    python scripts/make_fashion_mnist.py --idx out/idx
    python benchmarks/pruning.py --data out/idx --device cuda --jobs 4

Fashion-MNIST, all 10,000 test images, the networks of the zoo. What is trained starts from the
float network, and learns from the labels and from that network's outputs (the vision transformer
from those of ResNet-20). What is pruned at once measures 512 images and is calibrated on them.
Accuracies are those of integer programs, whose zeros are counted on the integers. What learns is
repeated with other seeds; the mean is written, and each seed in the note.

Beside ours: the sparsifiers of torchao and of PyTorch, which zero the weights of the same float
network at once, and are then calibrated and converted in the same way.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor, nn

from few_bit_tasks import SHARE_OF_TEACHER, SMOOTHING, TEACHERS, TEMPERATURE
from ours import as_network, float_network
from photomask import zoo
from photomask.chip import IntegerProgram, PreparedModel, calibrate, convert, load_target, prepare
from photomask.chip.operators import Convolution, Linear
from photomask.chip.operators.weights import effective_weight
from photomask.chip.pruning import (
    Blocks,
    GraNet,
    Magnitude,
    NofM,
    Pruner,
    PruningSchedule,
    SparseRefinement,
    Wanda,
    prune,
)
from photomask.chip.recipe.presets import PRESETS
from photomask.chip.training import TensorData, TrainingSettings, keep_batch_norms, train
from photomask.zoo.augmentation import augment
from rows import Results, Subject

WHAT = "pruning"
TARGET = load_target("asic")
TWO_OF_FOUR = NofM(kept=2, group=4)
TILES = Blocks(outputs=8, inputs=8)
CALIBRATION = 512
BATCH = 500
WIDTHS = {"W8A8": 8, "W4A4": 4}
TRAINED: dict[str, Callable[[], Pruner]] = {
    "GraNet 80 %": lambda: GraNet(0.8),
    "2:4, SR-STE": lambda: SparseRefinement(pattern=TWO_OF_FOUR),
    "8x8 tiles 80 %": lambda: Magnitude(0.8, pattern=TILES, scope="global"),
}
AT_ONCE: dict[str, Callable[[], Pruner]] = {
    "2:4, magnitude, at once": lambda: Magnitude(pattern=TWO_OF_FOUR),
    "2:4, Wanda, at once": lambda: Wanda(pattern=TWO_OF_FOUR),
    "50 %, magnitude, at once": lambda: Magnitude(0.5),
    "50 %, Wanda, at once": lambda: Wanda(0.5),
}
DENSE = "dense"
"""Trained in the same way without a pruner: what the widths alone cost."""


@dataclass(frozen=True)
class Task:
    """One network, pruned and quantized in one way, as often as there are seeds."""

    network: str
    width: str
    way: str
    seeds: int = 1

    @property
    def is_trained(self) -> bool:
        """Whether weights learn."""
        return self.way in TRAINED or self.way == DENSE


@dataclass(frozen=True)
class Options:
    """What all tasks share."""

    data: str
    device: str
    epochs: int | None
    test_images: int


@dataclass(frozen=True)
class Outcome:
    """What came of a task, one figure of each kind for each seed."""

    task: Task
    seconds: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)
    problem: str = ""


def settings_for(task: Task, options: Options, seed: int) -> TrainingSettings:
    """Returns the schedule of a training with or without a pruner."""
    transformer, wide = task.network == "vision_transformer", task.width == "W8A8"
    return TrainingSettings(
        epochs=options.epochs or (24 if transformer else 30),
        optimizer="adamw" if transformer else "sgd",
        learning_rate=5e-4 if transformer else 0.02,
        quantizer_learning_rate=1e-4 if wide else 1e-3 if transformer else 0.01,
        weight_decay=0.01 if transformer else 1e-4,
        warmup_epochs=0.5,
        label_smoothing=SMOOTHING,
        distillation=SHARE_OF_TEACHER,
        temperature=TEMPERATURE,
        average_decay=0.999,
        frozen_scale_share=0.0,
        pruning=PruningSchedule(end=0.6, interval=100),
        bfloat16=options.device.startswith("cuda"),
        seed=seed,
    )


def prepared_for(task: Task, model: nn.Module, options: Options, seed: int) -> PreparedModel:
    """Returns a model that is pruned, calibrated and, where that is its way, trained."""
    calibration = zoo.calibration_set(CALIBRATION)[0]
    bits = WIDTHS[task.width]
    if not task.is_trained:
        prepared = prepare(model, task.width.lower(), calibration[:1])
        if task.way in AT_ONCE:
            prune(prepared, AT_ONCE[task.way](), calibration)
        else:
            ZEROED_BY[task.way](model, calibration)
            prepared = prepare(model, task.width.lower(), calibration[:1])
        return calibrate(prepared, calibration)
    learned = PRESETS["w4a4-lsq"]
    recipe = learned.model_copy(
        update={
            "name": f"{task.width.lower()}-lsq",
            "weight": learned.weight.model_copy(update={"bits": bits}),
            "activation": learned.activation.model_copy(update={"bits": bits}),
        }
    )
    prepared = prepare(model, recipe.build(), calibration[:1])
    calibrate(prepared, calibration)
    if task.network != "vision_transformer":
        keep_batch_norms(prepared, model, calibration[:1])
    teacher = TEACHERS.get(task.network)
    train(
        prepared,
        TensorData(*zoo.training_set(options.data), augment),
        settings_for(task, options, seed),
        teacher=zoo.load(teacher) if teacher else None,
        pruner=TRAINED[task.way]() if task.way in TRAINED else None,
        device=options.device,
        compiled=True,
    )
    return prepared


def zeros_of(program: IntegerProgram) -> float:
    """Returns the percentage of a program's integer weights that are zero."""
    weights = [
        effective_weight(program.parameters(step))
        for step in program.steps
        if isinstance(step.operator, (Convolution, Linear))
    ]
    return 100 * sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def require_pattern(program: IntegerProgram, prepared: PreparedModel) -> None:
    """Stops the benchmark where a pruned weight is not zero in the integers."""
    masks = {node.name: mask.numpy() for node, mask in prepared.pruned_layers()}
    for step in program.steps:
        if step.node in masks and isinstance(step.operator, (Convolution, Linear)):
            weight = effective_weight(program.parameters(step))
            assert not np.any(weight[~masks[step.node].reshape(weight.shape)]), step.node


def torchao_wanda(model: nn.Module, calibration: Tensor) -> None:
    """Zeroes weights 2:4 by torchao's Wanda, in place."""
    from torchao.sparsity import WandaSparsifier

    layers = [
        {"tensor_fqn": f"{name}.weight"}
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    sparsifier = WandaSparsifier(sparsity_level=0.5, semi_structured_block_size=4)
    sparsifier.prepare(model, layers)
    with torch.no_grad():
        model(calibration)
    sparsifier.step()
    sparsifier.squash_mask()


def torch_magnitude(model: nn.Module, calibration: Tensor) -> None:
    """Zeroes half of the weights of each layer by PyTorch's pruning, in place."""
    from torch.nn.utils import prune as torch_prune

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.shape[1] > 1:
            torch_prune.l1_unstructured(module, "weight", amount=0.5)
            torch_prune.remove(module, "weight")


ZEROED_BY: dict[str, Callable[[nn.Module, Tensor], None]] = {
    "torchao 2:4, Wanda, at once": torchao_wanda,
    "PyTorch 50 %, magnitude, at once": torch_magnitude,
}
PACKAGES = {"torchao 2:4, Wanda, at once": "torchao", "PyTorch 50 %, magnitude, at once": "torch"}
PEERS = {
    "resnet20": ("PyTorch 50 %, magnitude, at once",),
    "vision_transformer": tuple(ZEROED_BY),
}
"""torchao prunes linear layers only, and ResNet-20 has one."""


def measure(task: Task, options: Options) -> Outcome:
    """Does one task in a process of its own: what is compiled serves all its seeds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    outcome = Outcome(task)
    images, labels = (tensor[: options.test_images] for tensor in zoo.test_set())
    for seed in range(task.seeds):
        start = time.perf_counter()
        try:
            model = zoo.load(task.network)
            if task.width == "float":
                run = float_network(model)
            else:
                prepared = prepared_for(task, model, options, seed)
                program = convert(prepared.cpu(), TARGET)
                require_pattern(program, prepared)
                outcome.zeros.append(zeros_of(program))
                run = as_network(program, options.device)
        except Exception as error:  # noqa: BLE001 - one way that fails must not end the others
            return Outcome(task, problem=f"{type(error).__name__}: {error}")
        outcome.seconds.append(time.perf_counter() - start)
        scores = torch.cat([run(part) for part in images.split(BATCH)])
        outcome.top1.append(100 * float((scores.argmax(1) == labels).double().mean()))
        print(
            f"{task}, seed {seed}: {outcome.top1[-1]:.2f} %, {outcome.seconds[-1]:.0f} s",
            flush=True,
        )
    return outcome


def write(results: Results, outcome: Outcome, options: Options) -> None:
    """Appends the rows of one way; several seeds become their mean."""
    task = outcome.task
    package = PACKAGES.get(task.way, "photomask")
    name = task.way if package != "photomask" else f"photomask {task.way}"
    name = "float" if task.width == "float" else f"{name}, {task.width}"
    on_gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu and task.is_trained else None
    subject = Subject(WHAT, name, task.network, package if name != "float" else "torch", device)
    if outcome.problem:
        results.skipped(subject, outcome.problem)
        return
    note = f"{options.test_images} images"
    if task.is_trained:
        note += f", {settings_for(task, options, 0).epochs} epochs"
    if len(outcome.top1) > 1:
        note += "; seeds: " + ", ".join(f"{value:.2f}" for value in outcome.top1)
    results.number(subject, "top1", statistics.fmean(outcome.top1), "%", note=note)
    if outcome.zeros:
        results.number(subject, "zeros", statistics.fmean(outcome.zeros), "%", note=note)
        results.number(subject, "time", statistics.median(outcome.seconds), "s", note=note)


def tasks_of(arguments: argparse.Namespace) -> list[Task]:
    """Returns what is asked for, the longest first."""
    found = []
    for network in arguments.networks:
        widths = ["W8A8"] if network == "vision_transformer" else list(WIDTHS)
        ways = ["2:4, SR-STE", DENSE] if network == "vision_transformer" else [*TRAINED, DENSE]
        for width in widths:
            found += [Task(network, width, way, arguments.seeds) for way in ways]
            if width == "W8A8":
                found += [Task(network, width, way) for way in (*AT_ONCE, *PEERS[network])]
        found.append(Task(network, "float", "float"))
    if arguments.ways:
        found = [task for task in found if task.way in arguments.ways]
    if arguments.widths:
        found = [task for task in found if task.width in arguments.widths]
    return sorted(found, key=lambda task: not task.is_trained)


def main() -> None:
    """Spreads the tasks over processes and writes rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="out/idx", help="folder of the idx .gz files")
    parser.add_argument("--networks", nargs="*", default=("resnet20", "vision_transformer"))
    parser.add_argument("--ways", nargs="*", help="of pruning; all without")
    parser.add_argument("--widths", nargs="*", help="such as W4A4 or float; all without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of every training")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    arguments = parser.parse_args()
    options = Options(arguments.data, arguments.device, arguments.epochs, arguments.test_images)
    results = Results(WHAT)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(measure, task, options) for task in tasks_of(arguments)]
        for future in as_completed(futures):
            write(results, future.result(), options)


if __name__ == "__main__":
    main()

"""What accuracy do weights keep whose sums provably fit narrow accumulators?

    python scripts/make_fashion_mnist.py --idx out/idx
    python benchmarks/accumulators.py --data out/idx --device cuda --jobs 8

ResNet-20 of the zoo on Fashion-MNIST with weights and layer inputs of 4 bits, trained with batch
norms kept, against the mixture of labels and the float network's outputs of `quantizers.py`. The
target has accumulators of the given width, for layers, sums and averages alike, so `convert`
proves for every input that they suffice. The figure is the accuracy of the integer program on all
test images. `LSQ` has accumulators of 32 bits; each narrow row also says how many bits its program
proves. `LSQ, projected` is the same trained network after `fit_accumulators`. All have one recipe
for a width: 6 bits for what sums add, and for weights and inputs of the first and the last layer;
12-bit accumulators cannot hold an average of 6-bit numbers, so there sums add 5 bits. The row `LSQ
of 32 bits, 8-bit ends` is the preset's recipe.

Brevitas' A2Q and A2Q+ train the same network from the same float weights in as many steps with its
own flow, where it is installed. It bounds the products of a layer, and neither the bias nor sums.

Each seed is a task of its own, and tasks run in parallel processes.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch
from torch import Tensor

from accumulator_peers import PEERS, quantized_by
from few_bit_tasks import TRAINED, Options, Task, settings_for, training_images
from ours import as_network
from photomask import zoo
from photomask.chip import (
    IntegerProgram,
    PreparedModel,
    Recipe,
    Rule,
    Target,
    align_to_target,
    calibrate,
    convert,
    load_recipe,
    prepare,
)
from photomask.chip.accumulators import fit_accumulators, signed_bits
from photomask.chip.quantizers import A2Q, LSQ, A2QPlus, LSQPlus, PerChannel, Quantizer
from photomask.chip.training import TensorData, keep_batch_norms, train
from photomask.zoo.augmentation import augment
from quantizers import train_peer
from rows import Results, Subject

WHAT = "accumulators"
NETWORK = "resnet20"
WIDEST = 32
BATCH = 500
"""Test images at a time."""
PRESET = "LSQ, 8-bit ends"
WEIGHTS: dict[str, Callable[[int], Quantizer]] = {
    "LSQ": lambda bits: LSQ(bits, granularity=PerChannel(), narrow=True),
    "A2Q": A2Q,
    "A2Q+": A2QPlus,
}
"""Our quantizers by the name in the rows."""


@dataclass(frozen=True)
class Contender:
    """One way of training, with accumulators of one width."""

    method: str
    bits: int
    peer: bool = False

    @property
    def implementation(self) -> str:
        """Name in the rows."""
        return f"{'Brevitas' if self.peer else 'photomask'} {self.method}, {self.bits}-bit sums"


@dataclass
class Outcome:
    """What came of one seed: figures by contender and metric, or why there are none."""

    contender: Contender
    seconds: float = 0.0
    figures: dict[Contender, dict[str, float]] = field(default_factory=dict)
    problem: str = ""


def recipe_for(contender: Contender) -> Recipe:
    """Returns the recipe of a contender of ours."""
    if contender.method == PRESET:
        return load_recipe("w4a4-lsq")
    make = WEIGHTS[contender.method]
    sums, ends = LSQPlus(5 if contender.bits < 14 else 6, symmetric=False), 6
    inputs = LSQPlus(ends, symmetric=False)
    return Recipe(
        name=f"w4a4-{contender.bits}-bit-sums",
        weight=make(4),
        activation=LSQPlus(4, symmetric=False),
        rules=(
            Rule("residual", activation=sums),
            Rule("operator:input", activation=inputs),
            Rule("operator:mean", activation=inputs),
            Rule("first", weight=make(ends)),
            Rule("last", weight=make(ends)),
        ),
    )


def target_of(bits: int) -> Target:
    """Returns the target with accumulators and biases of the given width."""
    return Target(name=f"sums{bits}", accumulator_bits=bits, bias_bits=bits)


def train_ours(contender: Contender, options: Options, seed: int) -> PreparedModel:
    """Returns the trained model, on the CPU and in float64."""
    model, target = zoo.load(NETWORK), target_of(contender.bits)
    calibration, _ = zoo.calibration_set(options.images)
    prepared = prepare(model, recipe_for(contender), calibration[:1], target=target)
    calibrate(prepared, calibration)
    keep_batch_norms(prepared, model, calibration[:1])
    data = TensorData(*training_images(options), augment)
    settings = settings_for(Task(NETWORK, "W4A4", TRAINED), options, seed)
    train(prepared, data, settings, device=options.device, compiled=options.on_gpu)
    return prepared.double()


def figures_of(prepared: PreparedModel, bits: int, options: Options) -> dict[str, float]:
    """Returns the accuracy of the program, what it proves, and how many weights are 0."""
    target = target_of(bits)
    align_to_target(prepared, target)
    program = convert(prepared, target)
    images, labels = (tensor[: options.test_images] for tensor in zoo.test_set())
    found = as_network(program, options.device)
    return {
        "top1": accuracy(found, images, labels),
        "proven": proven_bits(program),
        "zeros": 100 * zeros(program),
    }


def proven_bits(program: IntegerProgram) -> int:
    """Returns the bits that the widest accumulator needs for every input, by the proof."""
    edges = [edge for edge in program.edges.values() if edge.role == "accumulator"]
    return max(signed_bits(edge.low, edge.high) for edge in edges)


def zeros(program: IntegerProgram) -> float:
    """Returns the share of integer weights that are 0."""
    weights = [t for name, t in program.tensors.items() if name.endswith(".weight")]
    return sum(int((t == 0).sum()) for t in weights) / sum(t.size for t in weights)


def accuracy(run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Returns the percentage of images that a network classifies correctly."""
    found = torch.cat([run(part).argmax(1).cpu() for part in images.split(BATCH)])
    return 100 * float((found == labels).double().mean())


def measure(
    contender: Contender, projected: tuple[int, ...], options: Options, seed: int
) -> Outcome:
    """Does one task in a process of its own."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    outcome, start = Outcome(contender), time.perf_counter()
    try:
        if contender.peer:
            outcome.figures[contender] = {"top1": peer_accuracy(contender, options, seed)}
            outcome.seconds = time.perf_counter() - start
            return outcome
        prepared = train_ours(contender, options, seed)
        outcome.seconds = time.perf_counter() - start
        for bits in projected:
            narrow = copy.deepcopy(prepared)
            report = fit_accumulators(narrow, target_of(bits))
            found = figures_of(narrow, bits, options)
            found["projected"] = sum(layer.channels for layer in report.layers)
            outcome.figures[Contender("LSQ, projected", bits)] = found
        outcome.figures[contender] = figures_of(prepared, contender.bits, options)
    except Exception as error:  # noqa: BLE001 - one way that fails must not end the others
        outcome.problem = f"{type(error).__name__}: {error}"
    print(f"{contender}, seed {seed}: {outcome.figures or outcome.problem}", flush=True)
    return outcome


def peer_accuracy(contender: Contender, options: Options, seed: int) -> float:
    """Returns the accuracy of Brevitas' network, in float on the training device."""
    task = Task(NETWORK, "W4A4", TRAINED, seeds=1)
    model, device = zoo.load(NETWORK), options.device
    calibration, _ = zoo.calibration_set(options.images)
    trainer = train_peer(task, model, options, seed)
    run = quantized_by(
        contender.method, copy.deepcopy(model).to(device), calibration.to(device), contender.bits,
        trainer,
    )  # fmt: skip
    images, labels = (tensor[: options.test_images] for tensor in zoo.test_set())
    return accuracy(run, images.to(device), labels)


def contenders_of(arguments: argparse.Namespace) -> list[Contender]:
    """Returns what is asked for; LSQ has wide accumulators only."""
    found = [Contender(method, WIDEST) for method in ("LSQ", PRESET) if "LSQ" in arguments.methods]
    for method in ("A2Q", "A2Q+"):
        if method in arguments.methods:
            found += [Contender(method, bits) for bits in arguments.bits]
        if method in arguments.peers:
            found += [Contender(method, bits, peer=True) for bits in arguments.bits]
    return found


def projected_widths(contender: Contender, bits: list[int]) -> tuple[int, ...]:
    """Returns the widths for which a trained network of LSQ is also projected."""
    if contender != Contender("LSQ", WIDEST):
        return ()
    # The average of 6-bit numbers, which LSQ's recipe has, needs 14 bits.
    return tuple(width for width in bits if 14 <= width < WIDEST)


def write(results: Results, found: list[Outcome], options: Options) -> None:
    """Appends the rows of one contender, and of what was projected from it."""
    epochs = options.epochs or Task(NETWORK, "W4A4", TRAINED).epochs
    device = torch.cuda.get_device_name() if options.on_gpu else None
    first = found[0].contender
    package = "brevitas" if first.peer else "photomask"
    problems = [outcome.problem for outcome in found if outcome.problem]
    if problems:
        subject = Subject(WHAT, first.implementation, NETWORK, package, device)
        results.skipped(subject, problems[0])
        return
    note = f"{options.test_images} images, {epochs} epoch{'s' * (epochs > 1)}"
    if options.training_images is not None:
        note += f" of {options.training_images} images"
    units = {"top1": "%", "zeros": "%", "proven": "bits", "projected": "channels"}
    for contender in found[0].figures:
        subject = Subject(WHAT, contender.implementation, NETWORK, package, device)
        for metric, unit in units.items():
            values = [o.figures[contender][metric] for o in found if metric in o.figures[contender]]
            if not values:
                continue
            each = ", ".join(f"{value:.2f}" for value in values)
            seeds = f"; mean of seeds: {each}" if len(values) > 1 else ""
            together = max(values) if metric == "proven" else statistics.fmean(values)
            if metric == "proven":
                seeds = seeds.replace("mean", "largest")
            results.number(subject, metric, together, unit, note=note + seeds)
    subject = Subject(WHAT, first.implementation, NETWORK, package, device)
    where = f"{note}, {options.device}, shared by several such runs"
    results.number(subject, "time", statistics.median(o.seconds for o in found), "s", note=where)


def main() -> None:
    """Spreads the tasks over processes and writes rows as the seeds of a contender are done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="out/idx", help="folder of the idx .gz files")
    parser.add_argument("--methods", nargs="*", default=tuple(WEIGHTS), choices=tuple(WEIGHTS))
    parser.add_argument("--peers", nargs="*", default=tuple(PEERS), choices=tuple(PEERS))
    parser.add_argument("--bits", nargs="*", type=int, default=[32, 16, 14, 12])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of every training; 30 if left out")
    parser.add_argument("--samples", type=int, help="training images; all if left out")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    arguments = parser.parse_args()
    options = Options(
        arguments.data,
        arguments.device,
        arguments.epochs,
        iterations=0,
        images=512,
        test_images=arguments.test_images,
        training_images=arguments.samples,
    )
    results, waiting = Results(WHAT), {}
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for contender in contenders_of(arguments):
            projected = projected_widths(contender, arguments.bits)
            for seed in range(arguments.seeds):
                future = pool.submit(measure, contender, projected, options, seed)
                waiting[future] = contender
        done: dict[Contender, list[Outcome]] = {}
        for future in as_completed(waiting):
            outcomes = done.setdefault(waiting[future], [])
            outcomes.append(future.result())
            if len(outcomes) == arguments.seeds:
                write(results, outcomes, options)


if __name__ == "__main__":
    main()

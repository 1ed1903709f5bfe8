"""Trains a network of the zoo on Fashion-MNIST and writes its weights and its model card.

    python scripts/make_fashion_mnist.py --idx out/idx
    python scripts/train_zoo.py resnet20 --data out/idx --output src/photomask/zoo/weights

All images stay on the device; every epoch shuffles and augments them there at once (random crop,
flip, random erasing). SGD with Nesterov momentum (the transformer: AdamW) follows a cosine after a
linear warm-up, with label smoothing. What is written is the exponential moving average of the
weights after the last step of the schedule, with batch-norm statistics measured afresh: the test
set is looked at once, when training is over, and chooses no checkpoint.

The networks are float, but meant to be quantized. So weight decay leaves out batch norms, biases
and depthwise filters (decaying them kills channels), and ResNet-20 and the transformer train under
weight noise as large as the rounding errors of 4-bit weights.

A GPU trains in bfloat16 with `torch.compile`; a CPU in float32. `--budget-seconds` shortens the
schedule, once the warm-up has been timed, so that training ends in time; the card then states the
epochs that were run, and `--epochs` with that number repeats the same schedule.
"""

import argparse
import copy
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from photomask.zoo import fashion_mnist, models
from photomask.zoo.augmentation import augment

BUILDERS = {
    "resnet20": models.resnet20,
    "mobilenet_v1": models.mobilenet_v1,
    "vision_transformer": models.vision_transformer,
}
TITLES = {
    "resnet20": "ResNet-20, width 16, 1x1-convolution shortcuts (option B), 1x28x28 input",
    "mobilenet_v1": "MobileNetV1, width multiplier 0.5, ReLU, strides for 1x28x28 input",
    "vision_transformer": "ViT, patches of 4, width 128, 7 blocks, 4 heads, 1x28x28 input",
}


_TRIAL = """ (One earlier trial had been scored on
them before weight decay, weight noise and MobileNetV1's strides were settled.)"""
TRIALS = {"resnet20": _TRIAL, "mobilenet_v1": _TRIAL}
"""What the cards of networks that were scored more than once say."""


@dataclass(frozen=True)
class Schedule:
    """What training does; `SCHEDULES` holds those of the shipped weights.

    Attributes:
        epochs: passes over the training images.
        batch: images a step; the remainder of an epoch is left out.
        learning_rate: at the end of the warm-up.
        warmup_epochs: of linear growth from zero.
        optimizer: "sgd", with Nesterov momentum, or "adamw".
        momentum: Nesterov momentum of SGD.
        weight_decay: on dense convolutions and linear layers.
        noise_bits: width of the per-channel weights whose rounding errors the training noise
            resembles; 0 for no noise (pseudo-quantization noise, arXiv:2104.09987).
        label_smoothing: probability spread over all classes.
        average_decay: of the exponential moving average of the weights, a step.
        padding_pixels: of the random crop.
        erasing_probability: of covering a rectangle with noise (Zhong et al., arXiv:1708.04896).
        seed: of weights, order and augmentation.
    """

    epochs: int = 300
    batch: int = 256
    learning_rate: float = 0.2
    warmup_epochs: int = 5
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    noise_bits: int = 0
    label_smoothing: float = 0.05
    average_decay: float = 0.999
    padding_pixels: int = 3
    erasing_probability: float = 0.5
    seed: int = 0

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Returns the learning rate of one step, counted from 0."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.epochs * steps_per_epoch - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES = {
    "resnet20": Schedule(noise_bits=4),
    "mobilenet_v1": Schedule(epochs=200),
    "vision_transformer": Schedule(
        optimizer="adamw",
        learning_rate=1e-3,
        warmup_epochs=10,
        weight_decay=0.05,
        noise_bits=4,
        erasing_probability=0.25,
    ),
}


def add_noise(weight: Tensor, bits: int) -> Tensor:
    """Adds what symmetric rounding to `bits` would, uniform noise of one step's width.

    Args:
        weight: float32 [out_channels, ...]; a channel's step is `max |weight| / (2^(bits-1) - 1)`.
        bits: width of the imagined integer weights.
    """
    step = weight.detach().flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    step = step.reshape(-1, *[1] * (weight.ndim - 1))
    return weight + (torch.rand_like(weight) - 0.5) * step


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Separates the weights that decay from those that do not."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        dense = _is_matrix(name, parameter) and parameter.shape[1] > 1
        (decayed if dense else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Tells the weights of convolutions and linear layers from biases, norms and positions."""
    return name.endswith("weight") and parameter.ndim > 1


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    groups = _parameter_groups(model, schedule.weight_decay)
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)
    return torch.optim.SGD(
        groups,
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=True,
        fused=True,
    )


def _floating(model: nn.Module) -> list[Tensor]:
    """Lists weights and batch statistics, leaving out the counters."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


class Trainer:
    """A model, its optimizer and the moving average of its weights."""

    def __init__(self, model: nn.Module, schedule: Schedule, device: torch.device):
        self.schedule = schedule
        self.device = device
        self.model = model.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model)
        self.currents = _floating(self.model)
        self.averages = _floating(self.average)
        self.step = 0
        self.optimizer = _optimizer(self.model, schedule)
        self.loss = self._loss
        if device.type == "cuda":
            self.loss = torch.compile(self._loss, mode="reduce-overhead")

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        weights = dict(self.model.named_parameters())
        if self.schedule.noise_bits:
            weights = {
                name: add_noise(weight, self.schedule.noise_bits)
                if _is_matrix(name, weight)
                else weight
                for name, weight in weights.items()
            }
        with torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda"):
            logits = torch.func.functional_call(self.model, weights, (images,))
        smoothing = self.schedule.label_smoothing
        return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def _augment(self, images: Tensor) -> Tensor:
        schedule = self.schedule
        return augment(images, schedule.padding_pixels, schedule.erasing_probability)

    def train_epoch(self, images: Tensor, labels: Tensor) -> float:
        """Runs one epoch over resident images; returns the mean loss."""
        self.model.train()
        batch = self.schedule.batch
        steps = len(images) // batch
        order = torch.randperm(len(images), device=self.device)
        images, labels = self._augment(images[order]), labels[order]
        total = torch.zeros((), device=self.device)
        for index in range(steps):
            part = slice(index * batch, (index + 1) * batch)
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.learning_rate_at(self.step, steps)
            if self.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()
            loss = self.loss(images[part], labels[part])
            total += loss.detach()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self._update_average()
        return (total / steps).item()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Moves the average of weights and batch statistics toward the model's."""
        decay = min(self.schedule.average_decay, self.step / (self.step + 10))
        torch._foreach_lerp_(self.averages, self.currents, 1 - decay)

    @torch.no_grad()
    def measure_statistics(self, images: Tensor) -> None:
        """Sets the averaged model's batch-norm statistics to those of one augmented epoch."""
        norms = [layer for layer in self.average.modules() if isinstance(layer, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.average.train()
        for batch in self._augment(images).split(self.schedule.batch):
            self.average(batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the percentage of images that the model, in float32, classifies correctly."""
    model.eval()
    torch.backends.cudnn.allow_tf32 = False
    correct = 0
    for start in range(0, len(images), 1000):
        logits = model(images[start : start + 1000])
        correct += int((logits.argmax(1) == labels[start : start + 1000]).sum())
    return 100 * correct / len(images)


def train(trainer: Trainer, images: Tensor, labels: Tensor, budget_seconds: float | None) -> float:
    """Runs the schedule, shortened to fit the budget if there is one; returns the seconds."""
    start = time.perf_counter()
    epoch = 0
    while epoch < trainer.schedule.epochs:
        epoch_start = time.perf_counter()
        loss = trainer.train_epoch(images, labels)
        epoch += 1
        now = time.perf_counter()
        if epoch == trainer.schedule.warmup_epochs and budget_seconds:
            affordable = epoch + int((budget_seconds - (now - start)) / (now - epoch_start))
            epochs = min(trainer.schedule.epochs, affordable)
            trainer.schedule = replace(trainer.schedule, epochs=epochs)
        if epoch <= 4 or epoch % 20 == 0 or epoch == trainer.schedule.epochs:
            epochs, seconds = trainer.schedule.epochs, now - epoch_start
            print(f"epoch {epoch}/{epochs}: loss {loss:.4f}, {seconds:.2f} s", flush=True)
    trainer.measure_statistics(images)
    return time.perf_counter() - start


def model_card(name: str, schedule: Schedule, accuracy: float, file: Path, seconds: float) -> str:
    """Writes down what the file is and how it came about, as Markdown."""
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU ({platform.machine()})"
    tensors = safetensors.torch.load_file(file)
    parameters = sum(p.numel() for p in BUILDERS[name]().parameters())
    settings = "\n".join(f"| {key} | {value} |" for key, value in asdict(schedule).items())
    return f"""# {file.name}

| | |
|---|---|
| architecture | {TITLES[name]} |
| task | Fashion-MNIST, ten classes |
| float accuracy | **{accuracy:.2f} %** of all 10,000 test images (float32) |
| parameters | {parameters:,} |
| file | {file.stat().st_size:,} bytes, {len(tensors)} tensors, float32 |
| licence | Apache-2.0 (the data: MIT, Zalando SE) |
| trained | {datetime.now(UTC):%Y-%m-%d}, {schedule.epochs} epochs, {seconds:.0f} s on {device} |
| versions | Python {platform.python_version()}, PyTorch {torch.__version__} |

Trained on the 60,000 training images of Fashion-MNIST, normalised as
`(pixel / 255 - {fashion_mnist.MEAN:.4f}) / {fashion_mnist.STANDARD_DEVIATION:.4f}`, with random
crops, flips and erasing. The weights are the exponential moving average after the last step of a
fixed schedule: the test images chose no checkpoint.{TRIALS.get(name, "")}

Weight decay covers the dense convolutions and the linear layers. With `noise_bits`, training adds
noise as large as the rounding errors of weights of that many bits, so that the network bears their
quantization.

    python scripts/make_fashion_mnist.py --idx out/idx
    python scripts/train_zoo.py {name} --data out/idx --output out/zoo \\
        --epochs {schedule.epochs} --seed {schedule.seed}

Another GPU, or another version, gives other weights of about the same accuracy.

| setting | value |
|---|---|
{settings}
"""


def main() -> None:
    """Parses the arguments, trains, and writes the weights and the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=sorted(BUILDERS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the idx .gz files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="default: as the shipped weights")
    parser.add_argument("--seed", type=int, default=Schedule.seed)
    parser.add_argument("--budget-seconds", type=float, help="end training within this time")
    parser.add_argument("--images", type=int, help="train on the first images only, as a trial")
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.benchmark = True
    images, labels = fashion_mnist.training_set(arguments.data)
    images, labels = images[: arguments.images].to(device), labels[: arguments.images].to(device)
    schedule = SCHEDULES[arguments.model]
    epochs = arguments.epochs or schedule.epochs
    schedule = replace(schedule, epochs=epochs, seed=arguments.seed)
    trainer = Trainer(BUILDERS[arguments.model](), schedule, device)
    seconds = train(trainer, images, labels, arguments.budget_seconds)

    test_images, test_labels = (tensor.to(device) for tensor in fashion_mnist.test_set())
    accuracy = evaluate(trainer.average, test_images, test_labels)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / f"{arguments.model}.safetensors"
    state = trainer.average.state_dict()
    state = {key: value.cpu().contiguous() for key, value in state.items()}
    safetensors.torch.save_file(state, file)
    card = model_card(arguments.model, trainer.schedule, accuracy, file, seconds)
    file.with_suffix(".md").write_text(card, encoding="utf-8")
    print(f"{arguments.model}: {accuracy:.2f} % of {len(test_images)} test images, {seconds:.0f} s")


if __name__ == "__main__":
    main()

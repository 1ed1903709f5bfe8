"""What `quantizers.py` does to which network: recipes, and how long each learns."""

from dataclasses import dataclass

from torch import Tensor

from photomask import zoo
from photomask.chip.recipe.documents import RecipeDocument
from photomask.chip.recipe.presets import PRESETS
from photomask.chip.reconstruction import ReconstructionSettings
from photomask.chip.training import TrainingSettings

WIDTHS = {"W8A8": (8, 8), "W4A8": (4, 8), "W4A4": (4, 4), "W2A2": (2, 2)}
NETWORKS = ("resnet20", "mobilenet_v1", "vision_transformer")
CALIBRATED = "calibrated"
RECONSTRUCTED = "reconstructed"
TRAINED = "trained"
PEER_NETWORKS = ("resnet20", "mobilenet_v1")
"""Peers' flows do not quantize what a transformer computes between its layers."""
EPOCHS = {"W8A8": 1, "W4A8": 5, "W4A4": 30, "W2A2": 60}
TRANSFORMER_EPOCHS = {"W8A8": 16, "W4A8": 10, "W4A4": 10, "W2A2": 10}
TEACHERS = {"vision_transformer": "resnet20"}
"""Who teaches if not the float network: transformers learn more from a convolutional network
(Touvron et al. 2021, section 4, arXiv:2012.12877)."""
COPIES = 3
"""Cropped and flipped copies of each calibration image where no transformer is reconstructed."""
WIDER = 4
"""How many times the batch a transformer is reconstructed with, in as much fewer steps."""
TRANSFORMER_IMAGES = 8192
"""Training images, without labels, that a transformer is reconstructed from: of 512 it learns the
noise, and ends 0.2 points lower."""
STRENGTH = 0.7
"""Of moving ranges from a transformer's norms into weights, where activations are few bits."""
SHARE_OF_TEACHER = 0.7
TEMPERATURE = 2.0
SMOOTHING = 0.05


@dataclass(frozen=True)
class Task:
    """One network to be quantized in one way, as often as there are seeds."""

    network: str
    width: str
    flow: str
    peer: str | None = None
    seeds: int = 1

    @property
    def is_transformer(self) -> bool:
        """Whether it is the vision transformer."""
        return self.network == "vision_transformer"

    @property
    def epochs(self) -> int:
        """Of a training, where none are asked for."""
        return (TRANSFORMER_EPOCHS if self.is_transformer else EPOCHS)[self.width]

    @property
    def implementation(self) -> str:
        """Name in the rows."""
        return f"{self.peer or 'photomask'} {self.width}, {self.flow}"

    @property
    def is_smoothed(self) -> bool:
        """Whether norms' ranges are moved into weights first; training finds its own."""
        return self.is_transformer and WIDTHS[self.width][1] < 8 and self.flow != TRAINED


@dataclass(frozen=True)
class Options:
    """What all tasks share."""

    data: str
    device: str
    epochs: int | None
    iterations: int
    images: int
    test_images: int
    training_images: int | None = None
    """None for all."""

    @property
    def on_gpu(self) -> bool:
        """Whether training is in bfloat16."""
        return self.device.startswith("cuda")


def training_images(options: Options) -> tuple[Tensor, Tensor]:
    """Returns the training images and their labels."""
    images, labels = zoo.training_set(options.data)
    return images[: options.training_images], labels[: options.training_images]


def recipe_for(task: Task) -> RecipeDocument:
    """Returns the preset of a width, or the same with quantizers that learn."""
    width = task.width
    weight_bits, activation_bits = WIDTHS[width]
    if task.flow == TRAINED:
        learned = PRESETS["w4a4-lsq"]
        return learned.model_copy(
            update={
                "name": f"{width.lower()}-lsq",
                "weight": learned.weight.model_copy(update={"bits": weight_bits}),
                "activation": learned.activation.model_copy(update={"bits": activation_bits}),
            }
        )
    name = "w4a4" if width == "W2A2" else width.lower()
    few = PRESETS["w4a4-encoder" if task.is_transformer and name == "w4a4" else name]
    if width != "W2A2":
        return few
    return few.model_copy(
        update={
            "name": "w2a2",
            "weight": few.weight.model_copy(update={"bits": 2}),
            "activation": few.activation.model_copy(update={"bits": 2}),
        }
    )


def settings_for(task: Task, options: Options, seed: int) -> TrainingSettings:
    """Returns the schedule of a training.

    Scales are not frozen at the end: another graph would be compiled for little. Two bits for 80
    epochs with a quarter of the decay, as LSQ has it, came out no better; their rows say so.
    """
    transformer, wide = task.is_transformer, task.width == "W8A8"
    return TrainingSettings(
        epochs=options.epochs or task.epochs,
        optimizer="adamw" if transformer else "sgd",
        learning_rate=(3e-4 if wide else 5e-4) if transformer else (0.001 if wide else 0.02),
        quantizer_learning_rate=1e-4 if wide else 1e-3 if transformer else 0.01,
        weight_decay=0.01 if transformer else 1e-4,
        warmup_epochs=0.5,
        label_smoothing=SMOOTHING,
        distillation=SHARE_OF_TEACHER,
        temperature=TEMPERATURE,
        average_decay=0.999,
        frozen_scale_share=0.0,
        bfloat16=options.on_gpu,
        seed=seed,
    )


def reconstruction_for(task: Task, options: Options, seed: int) -> ReconstructionSettings:
    """Returns how a network is reconstructed: as many samples a block, whatever the batch."""
    wider = WIDER if task.is_transformer else 1
    return ReconstructionSettings(
        iterations=options.iterations // wider, batch_size=32 * wider, seed=seed
    )

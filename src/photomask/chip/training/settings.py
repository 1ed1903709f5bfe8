"""What training does, as data."""

import math
from typing import Literal

from pydantic import Field, model_validator

from photomask.documents import Document


class WidthStage(Document):
    """From an epoch on, no quantizer has fewer bits than these.

    Attributes:
        epoch: the first epoch of the stage, from 0.
        bits: least width; a quantizer that the recipe gives more keeps them.
    """

    epoch: int = Field(ge=0)
    bits: int = Field(ge=2, le=16)


class TrainingSettings(Document):
    """The schedule of quantization-aware training; a checkpoint belongs to one.

    Attributes:
        epochs: passes over the data.
        batch_size: samples of a step, over all processes together; what remains of an epoch is left
            out. Data that come as batches have their own.
        optimizer: `sgd` with Nesterov momentum, or `adamw`.
        learning_rate: of weights and biases, at the end of the warm-up; it then falls to 0 along
            half a cosine.
        quantizer_learning_rate: of what quantizers learn; follows the same schedule.
        momentum: of `sgd`; `adamw` has its usual two.
        weight_decay: of dense weights; biases, depthwise filters, norms and quantizers have none.
        warmup_epochs: of linear growth from 0.
        label_smoothing: probability spread over all classes.
        distillation: share of the loss that is the distance to the float model's outputs; the rest
            is that to the labels.
        temperature: of distillation.
        average_decay: of the exponential moving average of the weights, a step; 0 for none. The
            trained model holds the average.
        widths: more bits in the first epochs, fewer later, down to the recipe's. Each change
            fits all scales again.
        frozen_scale_share: share of the epochs, the last ones, in which quantizers learn nothing.
        frozen_batch_norm_share: share of the epochs, the last ones, in which batch norms that
            `prepare` kept use their running statistics.
        calibration_samples: how many samples fit scales again where a width changes.
        bfloat16: layers compute in bfloat16; quantizers, losses and weights stay in float32.
        seed: of order, augmentation and whatever else draws numbers.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=256, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    quantizer_learning_rate: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    widths: tuple[WidthStage, ...] = ()
    frozen_scale_share: float = Field(default=0.1, ge=0, le=1)
    frozen_batch_norm_share: float = Field(default=0.0, ge=0, le=1)
    calibration_samples: int = Field(default=1024, ge=1)
    bfloat16: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_order(self) -> "TrainingSettings":
        epochs = [stage.epoch for stage in self.widths]
        if epochs != sorted(set(epochs)) or any(epoch >= self.epochs for epoch in epochs):
            raise ValueError(
                f"stages of widths begin at epochs {epochs}; they must grow and stay below "
                f"{self.epochs}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warm-up of {self.warmup_epochs:g} epochs in a training of {self.epochs}"
            )
        return self

    def learning_rate_factor(self, step: int, steps_per_epoch: int) -> float:
        """Returns what both learning rates are multiplied by at a step, counted from 0."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return min(1.0, (step + 1) / warmup)
        progress = (step - warmup) / max(1.0, self.epochs * steps_per_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def least_bits(self, epoch: int) -> int:
        """Returns the least width of an epoch; 0 where the recipe alone decides."""
        begun = [stage.bits for stage in self.widths if stage.epoch <= epoch]
        return begun[-1] if begun else 0

    def is_last_share(self, epoch: int, share: float) -> bool:
        """Tells whether an epoch is among the last ones that make up a share of all."""
        return epoch >= self.epochs - round(share * self.epochs)

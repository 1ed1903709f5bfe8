"""Defines the schedule and the settings of a training."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from photomask.chip.pruning import PruningSchedule
from photomask.documents import Document


class WidthStage(Document):
    """A stage of a training in which no quantizer has fewer bits than a given width.

    Attributes:
        epoch: the first epoch of the stage, counted from 0.
        bits: the least width; a quantizer with more bits in the recipe keeps those.
    """

    epoch: int = Field(ge=0)
    bits: int = Field(ge=2, le=16)


class Schedule(Document):
    """The optimizer, its rates and the batches of a training; a resumed training needs the same.

    Attributes:
        epochs: the number of passes over the data.
        batch_size: the number of samples of a step, over all processes together. An incomplete last
            batch of an epoch is left out. Data that come as batches keep their own size.
        optimizer: `sgd` with Nesterov momentum, or `adamw`.
        learning_rate: the learning rate of weights and biases at the end of the warm-up, after
            which it falls to 0 along half a cosine.
        momentum: the momentum of `sgd`; `adamw` uses PyTorch's defaults.
        weight_decay: the weight decay of dense weights. Biases, depthwise filters, norms and
            quantizers have none.
        warmup_epochs: the number of epochs in which the learning rates grow linearly from 0.
        average_decay: the decay per step of the exponential moving average of the weights; 0 for no
            average. The trained model holds the average.
        bfloat16: True if layers compute in bfloat16; quantizers, losses and weights stay in
            float32.
        seed: the seed of the sample order, the augmentation and all other random numbers.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(default=256, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    bfloat16: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"the warm-up of {self.warmup_epochs:g} epochs must be shorter than the training "
                f"of {self.epochs} epochs"
            )
        return self

    def learning_rate_factor(self, step: int, steps_per_epoch: int) -> float:
        """Returns the factor of all learning rates at a step, counted from 0."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return min(1.0, (step + 1) / warmup)
        progress = (step - warmup) / max(1.0, self.epochs * steps_per_epoch - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class TrainingSettings(Schedule):
    """The settings of quantization-aware training: a schedule, and what concerns quantizers.

    Attributes:
        quantizer_learning_rate: the learning rate of what quantizers learn, with the same schedule.
        label_smoothing: the probability that is spread over all classes.
        distillation: the share of the loss that measures the distance to the teacher's outputs,
            0 to 1. The rest measures the distance to the labels.
        temperature: the temperature of the distillation.
        widths: stages with more bits in the first epochs and fewer later, down to those of the
            recipe. All scales are fitted again at each change.
        frozen_scale_share: the share of the epochs, at the end, in which scales are frozen.
        frozen_batch_norm_share: the share of the epochs, at the end, in which batch norms that
            `keep_batch_norms` kept use their running statistics.
        calibration_samples: the number of samples that fit the scales again where a width changes.
        pruning: when a training with a pruner prunes.
    """

    quantizer_learning_rate: float = Field(default=0.01, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)
    widths: tuple[WidthStage, ...] = ()
    frozen_scale_share: float = Field(default=0.1, ge=0, le=1)
    frozen_batch_norm_share: float = Field(default=0.0, ge=0, le=1)
    calibration_samples: int = Field(default=1024, ge=1)
    pruning: PruningSchedule = PruningSchedule()

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        epochs = [stage.epoch for stage in self.widths]
        if epochs != sorted(set(epochs)) or any(epoch >= self.epochs for epoch in epochs):
            raise ValueError(
                f"the stages of `widths` begin at the epochs {epochs}, which must increase and "
                f"stay below {self.epochs}"
            )
        return self

    def least_bits(self, epoch: int) -> int:
        """Returns the least width in an epoch, or 0 where only the recipe decides."""
        begun = [stage.bits for stage in self.widths if stage.epoch <= epoch]
        return begun[-1] if begun else 0

    def is_last_share(self, epoch: int, share: float) -> bool:
        """Tells whether an epoch belongs to the given share of the epochs at the end."""
        return epoch >= self.epochs - round(share * self.epochs)

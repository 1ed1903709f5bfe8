"""Quantization-aware training of the weights and scales of a prepared model."""

from photomask.chip.training.averaging import WeightAverage
from photomask.chip.training.batch_norm import (
    LiveBatchNorm,
    fold_batch_norms,
    freeze_batch_norms,
    keep_batch_norms,
    measure_batch_norms,
)
from photomask.chip.training.callbacks import Callback
from photomask.chip.training.checkpoint import load_weights, save_weights
from photomask.chip.training.data import BatchData, TensorData
from photomask.chip.training.freezing import ProgressiveFreezing
from photomask.chip.training.loop import train
from photomask.chip.training.losses import distillation_loss
from photomask.chip.training.optimization import parameter_groups
from photomask.chip.training.processes import is_first_process
from photomask.chip.training.projection import project_weights
from photomask.chip.training.quantized import check_quantizers
from photomask.chip.training.report import EpochRecord, TrainingReport
from photomask.chip.training.settings import Schedule, TrainingSettings, WidthStage
from photomask.chip.training.widths import refit, set_least_bits

__all__ = [
    "BatchData",
    "Callback",
    "EpochRecord",
    "LiveBatchNorm",
    "ProgressiveFreezing",
    "Schedule",
    "TensorData",
    "TrainingReport",
    "TrainingSettings",
    "WeightAverage",
    "WidthStage",
    "check_quantizers",
    "distillation_loss",
    "fold_batch_norms",
    "freeze_batch_norms",
    "is_first_process",
    "keep_batch_norms",
    "load_weights",
    "measure_batch_norms",
    "parameter_groups",
    "project_weights",
    "refit",
    "save_weights",
    "set_least_bits",
    "train",
]

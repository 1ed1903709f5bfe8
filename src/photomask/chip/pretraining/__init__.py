"""Pre-training of float encoders without labels, and what follows it: a probe, and fine-tuning."""

from photomask.chip.pretraining.augmentation import RandomViews
from photomask.chip.pretraining.barlow_twins import BarlowTwins
from photomask.chip.pretraining.cross_distillation import CrossDistillation
from photomask.chip.pretraining.encoder import Encoder, without_head
from photomask.chip.pretraining.fine_tuning import fine_tune
from photomask.chip.pretraining.method import Method
from photomask.chip.pretraining.pretrain import pretrain
from photomask.chip.pretraining.probing import ProbeReport, linear_probe
from photomask.chip.pretraining.projector import make_projector
from photomask.chip.pretraining.vicreg import VICReg

__all__ = [
    "BarlowTwins",
    "CrossDistillation",
    "Encoder",
    "Method",
    "ProbeReport",
    "RandomViews",
    "VICReg",
    "fine_tune",
    "linear_probe",
    "make_projector",
    "pretrain",
    "without_head",
]

"""Observers choose a tensor's range from the values of calibration batches."""

from photomask.chip.observers.base import MinMax, MovingAverage, Observer
from photomask.chip.observers.grid import Grid
from photomask.chip.observers.kl import KL
from photomask.chip.observers.moments import MeanMagnitude, Moments, ThreeSigma
from photomask.chip.observers.mse import MSE
from photomask.chip.observers.percentile import Percentile

__all__ = [
    "KL",
    "MSE",
    "Grid",
    "MeanMagnitude",
    "MinMax",
    "Moments",
    "MovingAverage",
    "Observer",
    "Percentile",
    "ThreeSigma",
]

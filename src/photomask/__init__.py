"""Photomask: static plans that make PyTorch models cheaper, and the proof that they hold.

`photomask.chip` turns a float model into an integer-only program and everything a hardware team
needs to verify it. `photomask.attention` makes the prefill of vision-language models sparse by a
plan for their heads. The package imports neither triton nor transformers.
"""

import logging

from photomask.errors import (
    BrokenDependencyError,
    CaptureError,
    DataError,
    DocumentError,
    EngineError,
    ExportError,
    FormError,
    LayoutError,
    MissingDependencyError,
    OperatorError,
    OrderError,
    PhotomaskError,
    PlanError,
    QuantizerError,
    RecipeError,
    TargetError,
    TrainingError,
    UnsupportedOperatorError,
    UsageError,
)

__version__ = "0.2.0"

__all__ = [
    "BrokenDependencyError",
    "CaptureError",
    "DataError",
    "DocumentError",
    "EngineError",
    "ExportError",
    "FormError",
    "LayoutError",
    "MissingDependencyError",
    "OperatorError",
    "OrderError",
    "PhotomaskError",
    "PlanError",
    "QuantizerError",
    "RecipeError",
    "TargetError",
    "TrainingError",
    "UnsupportedOperatorError",
    "UsageError",
    "__version__",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
